from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from peft_trainer.memory_kills import oom_kill_count
from peft_trainer.parent import Supervision, supervise
from training_contract.captured_output import MARKER_BYTES, left_out_bytes
from training_contract.documents import read_document
from training_contract.lifeline import LIFELINE_VARIABLE, ProcessIdentity
from training_contract.locations import AttemptDirectory
from training_contract.process_exit import ProcessExit

REPOSITORY = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 60.0
SAY_READY_AND_WAIT = "print('ready', flush=True)\nsignal.pause()\n"

DRIVER = """
import json, re, sys
from pathlib import Path
from peft_trainer.parent import Supervision, supervise
from training_contract.locations import AttemptDirectory
code = supervise(
    json.loads(sys.argv[2]), AttemptDirectory(Path(sys.argv[1]), 1), supervision=Supervision(**json.loads(sys.argv[3]))
)
# Not getrusage(): the peak that it tells includes that of the process which started this one.
status = Path("/proc/self/status").read_text()
Path(sys.argv[1], "peak_memory").write_text(str(int(re.search("VmHWM:\\s+(\\d+) kB", status).group(1)) * 1024))
sys.exit(code)
"""


@pytest.fixture
def attempt(tmp_path: Path) -> AttemptDirectory:
    return AttemptDirectory(tmp_path, 1)


def python(program: str) -> list[str]:
    return [sys.executable, "-c", program]


def exit_of(attempt: AttemptDirectory) -> ProcessExit:
    return read_document(attempt.process_exit_file, ProcessExit)


def start_parent(
    attempt: AttemptDirectory, command: Sequence[str], *, lifeline: str = "", **supervision: Any
) -> subprocess.Popen[bytes]:
    """Start a parent as a process of its own, as the trainer's entry point does."""
    return subprocess.Popen(
        [sys.executable, "-S", "-c", DRIVER, str(attempt.root), json.dumps(command), json.dumps(supervision)],
        env={
            **os.environ,
            "PYTHONPATH": f"{REPOSITORY / 'plugins'}{os.pathsep}{REPOSITORY / 'trainer_image'}",
            LIFELINE_VARIABLE: lifeline,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


def first_line(parent: subprocess.Popen[bytes]) -> str:
    assert parent.stdout is not None
    return parent.stdout.readline().decode().strip()


def finish(parent: subprocess.Popen[bytes]) -> int:
    parent.communicate(timeout=PATIENCE_SECONDS)
    return parent.returncode


def ends(process_id: int) -> bool:
    """Wait for the end of a process that is not our child; a zombie counts as ended."""
    try:
        descriptor = os.pidfd_open(process_id)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], PATIENCE_SECONDS)[0])
    finally:
        os.close(descriptor)


def test_streams_are_kept_apart_and_the_exit_code_is_handed_on(attempt: AttemptDirectory) -> None:
    code = supervise(python("import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"), attempt)

    assert code == 3
    assert attempt.stdout_file.read_bytes() == b"out\n"
    assert attempt.stderr_file.read_bytes() == b"err\n"
    ending = exit_of(attempt)
    assert (ending.exit_code, ending.signal, ending.stop_requested) == (3, None, False)
    assert (ending.stdout_bytes, ending.stderr_bytes) == (4, 4)
    assert ending.started_at <= ending.ended_at
    assert attempt.heartbeat_file.exists()


def test_what_the_child_prints_is_copied_to_our_own_streams(
    attempt: AttemptDirectory, capfd: pytest.CaptureFixture[str]
) -> None:
    supervise(python("import sys; print('out'); print('err', file=sys.stderr)"), attempt)

    captured = capfd.readouterr()
    assert captured.out == "out\n"
    assert captured.err == "err\n"


def test_the_child_gets_the_environment_it_is_given_and_no_other(attempt: AttemptDirectory) -> None:
    supervise(["/usr/bin/env"], attempt, environment={"LC_ALL": "C.UTF-8", "ONLY": "this"})

    assert attempt.stdout_file.read_text() == "LC_ALL=C.UTF-8\nONLY=this\n"


def test_the_childs_peak_memory_is_recorded(attempt: AttemptDirectory) -> None:
    supervise(python("b'x' * 200_000_000"), attempt)

    assert (exit_of(attempt).peak_memory_bytes or 0) > 200_000_000


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL], ids=lambda number: number.name)
def test_a_death_by_signal_is_told_as_such(attempt: AttemptDirectory, number: signal.Signals) -> None:
    code = supervise(python(f"import os; print('last words', flush=True); os.kill(os.getpid(), {number})"), attempt)

    assert code == 128 + number
    assert (exit_of(attempt).exit_code, exit_of(attempt).signal) == (128 + number, number)
    assert attempt.stdout_file.read_text() == "last words\n"


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        pytest.param(["no-such-program-here"], 127, id="not found"),
        pytest.param(["/etc/passwd"], 126, id="not executable"),
        pytest.param(["nul\0byte"], 126, id="impossible name"),
    ],
)
def test_a_command_that_cannot_be_started_leaves_evidence_too(
    attempt: AttemptDirectory, command: list[str], expected: int
) -> None:
    assert supervise(command, attempt) == expected
    assert exit_of(attempt).exit_code == expected
    assert "cannot be started" in attempt.stderr_file.read_text()


def test_the_first_and_the_last_part_of_a_long_stream_are_kept(attempt: AttemptDirectory) -> None:
    supervise(
        python("for n in range(100_000): print(f'{n:09d}')"),
        attempt,
        supervision=Supervision(head_limit_bytes=10_000, tail_limit_bytes=5_000),
    )

    kept = attempt.stdout_file.read_bytes()
    assert len(kept) == 10_000 + MARKER_BYTES + 5_000
    assert kept[:10_000] == b"".join(b"%09d\n" % n for n in range(1_000))
    assert kept[-5_000:] == b"".join(b"%09d\n" % n for n in range(99_500, 100_000))
    assert left_out_bytes(attempt.stdout_file, head_limit_bytes=10_000) == 1_000_000 - 15_000
    assert exit_of(attempt).stdout_bytes == 1_000_000


@pytest.mark.parametrize(
    "program",
    [
        pytest.param("import sys\nfor _ in range(100): sys.stdout.write('x' * 1_000_000)", id="one line of 100 MB"),
        pytest.param("import sys\nfor _ in range(1000): sys.stdout.write('x' * 99_999 + '\\n')", id="100 MB of lines"),
    ],
)
def test_memory_does_not_grow_with_what_is_printed(attempt: AttemptDirectory, program: str) -> None:
    code = finish(start_parent(attempt, python(program), head_limit_bytes=1_000_000))

    assert code == 0
    assert exit_of(attempt).stdout_bytes == 100_000_000
    assert int((attempt.root / "peak_memory").read_text()) < 64_000_000


@pytest.mark.soak
def test_a_gigabyte_of_lines_is_survived(attempt: AttemptDirectory) -> None:
    code = finish(
        start_parent(attempt, ["sh", "-c", "yes 'a line of some length, again and again' | head -c 1000000000"])
    )

    assert code == 0
    assert exit_of(attempt).stdout_bytes == 1_000_000_000
    assert int((attempt.root / "peak_memory").read_text()) < 64_000_000


def test_a_reader_who_never_reads_does_not_hold_up_the_child(attempt: AttemptDirectory) -> None:
    parent = start_parent(
        attempt, python("print('x' * 99 + '\\n' * 50_000)"), copy_bytes_per_second=10_000_000, drain_seconds=0.1
    )

    assert parent.wait(PATIENCE_SECONDS) == 0
    assert parent.stdout is not None
    parent.stdout.close()
    assert exit_of(attempt).stdout_bytes == attempt.stdout_file.stat().st_size == 50_100


def test_a_missing_directory_costs_the_evidence_and_not_the_run(tmp_path: Path) -> None:
    assert supervise(python("print('x' * 1_000_000)"), AttemptDirectory(tmp_path / "missing", 1)) == 0


def test_a_request_to_stop_reaches_the_child_who_may_end_in_its_own_way(attempt: AttemptDirectory) -> None:
    program = "import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(75))\n" + SAY_READY_AND_WAIT
    parent = start_parent(attempt, python(program), grace_seconds=PATIENCE_SECONDS)
    assert first_line(parent) == "ready"

    parent.send_signal(signal.SIGTERM)

    assert finish(parent) == 75
    assert (exit_of(attempt).exit_code, exit_of(attempt).stop_requested) == (75, True)


def test_a_child_that_ignores_the_request_is_killed_when_the_grace_is_over(attempt: AttemptDirectory) -> None:
    program = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SAY_READY_AND_WAIT
    parent = start_parent(attempt, python(program), grace_seconds=0.1)
    assert first_line(parent) == "ready"

    parent.send_signal(signal.SIGINT)

    assert finish(parent) == 137
    assert (exit_of(attempt).signal, exit_of(attempt).stop_requested) == (signal.SIGKILL, True)


def test_a_process_left_behind_is_killed_and_does_not_hold_up_the_end(attempt: AttemptDirectory) -> None:
    code = supervise(["sh", "-c", "sleep 1000 & echo $!"], attempt, supervision=Supervision(drain_seconds=0.1))

    assert code == 0
    assert ends(int(attempt.stdout_file.read_text()))


def test_a_process_that_escaped_the_group_does_not_hold_up_the_end(attempt: AttemptDirectory) -> None:
    escaping = "import os, signal; os.setsid(); print(os.getpid(), flush=True); signal.pause()"
    program = (
        "import os, subprocess, sys\n"
        f"other = subprocess.Popen([sys.executable, '-c', {escaping!r}], stdout=subprocess.PIPE)\n"
        "print(other.stdout.readline().decode(), flush=True)\n"
        "os._exit(0)"
    )

    assert supervise(python(program), attempt, supervision=Supervision(drain_seconds=0.1)) == 0

    os.kill(int(attempt.stdout_file.read_text()), signal.SIGKILL)


def test_no_child_survives_a_parent_that_was_killed(attempt: AttemptDirectory) -> None:
    program = "import os, signal\nprint(os.getpid(), flush=True)\n" + SAY_READY_AND_WAIT
    parent = start_parent(attempt, python(program))
    child = int(first_line(parent))

    parent.kill()

    assert ends(child)
    finish(parent)


def test_the_trainer_is_stopped_when_whoever_started_it_is_gone(attempt: AttemptDirectory) -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as starter:
        identity = ProcessIdentity.of(starter.pid)
        parent = start_parent(attempt, python("import signal\n" + SAY_READY_AND_WAIT), lifeline=str(identity))
        assert first_line(parent) == "ready"
        starter.kill()

        assert finish(parent) == 143
    assert exit_of(attempt).stop_requested


def test_a_lifeline_that_was_gone_from_the_start_stops_the_trainer_too(attempt: AttemptDirectory) -> None:
    parent = start_parent(attempt, python("import signal; signal.pause()"), lifeline=f"{os.getpid()}:1")

    assert finish(parent) == 143


def test_the_last_part_is_in_the_file_while_the_child_still_runs(attempt: AttemptDirectory) -> None:
    program = "import signal\nprint('x' * 5000, flush=True)\nsignal.pause()"
    parent = start_parent(attempt, python(program), head_limit_bytes=100, tail_limit_bytes=50)
    first_line(parent)
    expected_bytes = 100 + MARKER_BYTES + 50
    wait = 'until [ $(stat -c %s "$0") = $1 ]; do :; done'
    subprocess.run(["sh", "-c", wait, attempt.stdout_file, str(expected_bytes)], check=True, timeout=PATIENCE_SECONDS)

    parent.kill()
    finish(parent)

    assert attempt.stdout_file.read_bytes().endswith(b"x" * 49 + b"\n")


def test_it_needs_the_standard_library_only() -> None:
    program = "import sys, peft_trainer.parent; print('\\n'.join({name.partition('.')[0] for name in sys.modules}))"
    environment = {"PYTHONPATH": f"{REPOSITORY / 'plugins'}{os.pathsep}{REPOSITORY / 'trainer_image'}"}
    modules = subprocess.run(
        [sys.executable, "-S", "-c", program], env=environment, capture_output=True, text=True, check=True
    ).stdout.split()

    assert set(modules) - sys.stdlib_module_names - {"__main__"} == {"peft_trainer", "training_contract"}


@pytest.mark.parametrize(
    ("memberships", "file", "content", "expected"),
    [
        pytest.param("0::/a/b\n", "a/b/memory.events", "low 0\noom_kill 3\n", 3, id="version 2"),
        pytest.param("0::/a/b\n", "memory.events", "oom_kill 2\n", 2, id="version 2, own group at the mount's root"),
        pytest.param(
            "5:cpu,memory:/x\n0::/\n", "memory/x/memory.oom_control", "under_oom 0\noom_kill 1\n", 1, id="version 1"
        ),
        pytest.param("0::/a\n", "a/memory.events", "low 0\n", None, id="kernel without the count"),
        pytest.param("1:cpu:/\n", "nothing", "", None, id="no memory controller"),
    ],
)
def test_kills_are_counted_by_the_control_group(
    tmp_path: Path, memberships: str, file: str, content: str, expected: int | None
) -> None:
    (tmp_path / "cgroup").write_text(memberships)
    (tmp_path / "mount" / file).parent.mkdir(parents=True)
    (tmp_path / "mount" / file).write_text(content)

    assert oom_kill_count(tmp_path / "cgroup", tmp_path / "mount") == expected


def test_kills_are_unknown_where_there_are_no_control_groups(tmp_path: Path) -> None:
    assert oom_kill_count(tmp_path / "missing") is None
