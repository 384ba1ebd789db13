"""A keeper leaves nothing of its command behind, however the end comes about."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo import keeper
from demo.kept_processes import ask_to_end, kept, kill, wait_for_end

LIMIT_SECONDS = 30
# Has a child that left its session and its parent, and that SIGTERM does not end; says who they are.
STUBBORN_FAMILY = textwrap.dedent(
    """
    import os, signal, sys, time
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.write(writer, b"%d" % os.getpid())
            time.sleep(600)
        os._exit(0)
    orphan = os.read(reader, 20).decode()
    print(os.getpid(), orphan, flush=True)
    exec(sys.argv[1])
    """
)
SLEEP = "time.sleep(600)"
# Starts a kept family and passes on what it says.
CALLER = textwrap.dedent(
    """
    import subprocess, sys
    from demo.kept_processes import kept
    command = kept([sys.executable, "-c", sys.argv[1], "time.sleep(600)"], grace_seconds=1)
    process = subprocess.Popen(command, start_new_session=True)
    print("keeper", process.pid, flush=True)
    process.wait()
    """
)


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes to end, come what may."""
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        process.send_signal(keeper.KILL_SIGNAL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def start_family(
    started: list[subprocess.Popen[bytes]], *, then: str, grace_seconds: float = 0.3
) -> tuple[subprocess.Popen[bytes], list[int]]:
    """Start a kept family; return its keeper and the ids of its two members."""
    command = kept([sys.executable, "-c", STUBBORN_FAMILY, then], grace_seconds=grace_seconds)
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    started.append(process)
    assert process.stdout is not None
    return process, [int(word) for word in process.stdout.readline().split()]


def ends(pid: int) -> bool:
    """Wait for a process that is not a child of this one; whether it has ended in time."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], LIMIT_SECONDS)[0])
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(
    ("then", "exit_code"),
    [
        pytest.param("sys.exit(7)", 7, id="exit code"),
        pytest.param("os.kill(os.getpid(), signal.SIGKILL)", 137, id="signal"),
    ],
)
def test_when_the_command_ends_its_orphans_are_killed_and_its_exit_code_is_kept(
    started: list[subprocess.Popen[bytes]], then: str, exit_code: int
) -> None:
    process, members = start_family(started, then=then)

    assert process.wait(LIMIT_SECONDS) == exit_code
    assert all(ends(pid) for pid in members)


@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_end_it_kills_what_does_not_heed_sigterm(
    started: list[subprocess.Popen[bytes]], told: signal.Signals
) -> None:
    process, members = start_family(started, then=SLEEP)
    process.send_signal(told)

    assert process.wait(LIMIT_SECONDS) == 128 + signal.SIGTERM
    assert all(ends(pid) for pid in members)


def test_a_command_that_ends_well_when_asked_keeps_its_exit_code(started: list[subprocess.Popen[bytes]]) -> None:
    process, members = start_family(
        started, then="signal.signal(signal.SIGTERM, lambda *_: sys.exit(3)); print(flush=True); time.sleep(600)"
    )
    assert process.stdout is not None
    process.stdout.readline()
    ask_to_end(process)

    assert process.wait(LIMIT_SECONDS) == 3
    assert all(ends(pid) for pid in members)


def test_kill_does_not_wait_for_the_grace_period(started: list[subprocess.Popen[bytes]]) -> None:
    process, members = start_family(started, then=SLEEP, grace_seconds=600)
    kill("family", process)

    assert process.returncode == 137
    assert all(ends(pid) for pid in members)


def test_waiting_is_cut_short_when_the_grace_period_is_longer(started: list[subprocess.Popen[bytes]]) -> None:
    process, members = start_family(started, then=SLEEP, grace_seconds=600)
    ask_to_end(process)
    wait_for_end({"family": process}, seconds=0.1)

    assert process.returncode is not None
    assert all(ends(pid) for pid in members)


@pytest.mark.parametrize("fate", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_outlives_the_process_that_started_it(
    started: list[subprocess.Popen[bytes]], fate: signal.Signals
) -> None:
    caller = subprocess.Popen(
        [sys.executable, "-c", CALLER, STUBBORN_FAMILY],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(Path(keeper.__file__).parents[1])},
    )
    started.append(caller)
    assert caller.stdout is not None
    words = caller.stdout.readline().split() + caller.stdout.readline().split()
    pids = [int(word) for word in words if word.isdigit()]
    caller.send_signal(fate)

    assert len(pids) == 3
    assert all(ends(pid) for pid in pids)


def test_a_killed_keeper_takes_its_command_along(started: list[subprocess.Popen[bytes]]) -> None:
    process, members = start_family(started, then=SLEEP)
    try:
        process.kill()

        assert ends(members[0])
    finally:
        os.kill(members[1], signal.SIGKILL)


def test_nothing_is_started_for_a_parent_that_is_gone() -> None:
    command = kept(["true"], grace_seconds=1)
    command[command.index(str(os.getpid()))] = "1"

    completed = subprocess.run(command, capture_output=True, text=True, check=False)

    assert completed.returncode == 1
    assert "nothing was started" in completed.stderr


def test_a_command_that_cannot_be_run_is_named() -> None:
    completed = subprocess.run(kept(["no-such-program"], grace_seconds=1), capture_output=True, text=True, check=False)

    assert completed.returncode == 127
    assert "cannot run no-such-program" in completed.stderr


def test_descendants_are_found_across_sessions(started: list[subprocess.Popen[bytes]]) -> None:
    process, members = start_family(started, then=SLEEP)

    assert set(members) <= set(keeper.descendants(process.pid))
