from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from peft_retraining.container.trainer_command import (
    MAX_OUTPUT_BYTES,
    checked_command,
    run_trainer_command,
    show_trainer_command,
    trainer_environment,
)
from peft_retraining.errors import InfrastructureError, PlatformError

PATIENCE_SECONDS = 60.0


@pytest.mark.parametrize(
    "name",
    [
        *("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH"),
        *("HF_HOME", "HF_TOKEN", "TRANSFORMERS_VERBOSITY", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"),
        *("https_proxy", "NO_PROXY", "SSL_CERT_FILE"),
    ],
)
def test_what_the_trainer_needs_is_passed_on(name: str) -> None:
    assert trainer_environment({name: "value"}) == {name: "value"}


@pytest.mark.parametrize(
    "name",
    [
        *("AIRFLOW__CORE__FERNET_KEY", "AIRFLOW_CONN_LABELLED_DATA", "AIRFLOW_HOME", "AIRFLOW_VAR_X"),
        *("DATABASE_URL", "AWS_SECRET_ACCESS_KEY", "PYTHONPATH", "VIRTUAL_ENV", "MY_HF_TOKEN", "PATHS", "_", "LC_ "),
    ],
)
def test_nothing_else_is_passed_on(name: str) -> None:
    assert trainer_environment({name: "value"}) == {}


@pytest.mark.parametrize(
    "command", [[], ["no-such-program"], ["/no/such/python", "-m", "peft_trainer"], ["/etc/passwd"]]
)
def test_a_missing_program_is_named_with_what_to_do(command: list[str]) -> None:
    with pytest.raises(PlatformError, match="cannot be started") as caught:
        checked_command(command, {"PATH": os.defpath})

    assert caught.value.failure_code == "trainer_environment_missing"
    assert "trainer_command" in caught.value.remedy


def test_a_program_is_looked_for_on_the_path_that_the_trainer_gets(tmp_path: Path) -> None:
    program = tmp_path / "trainer"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)

    assert checked_command(["trainer", "-x"], {"PATH": str(tmp_path)}) == [str(program), "-x"]


def test_a_command_is_run_to_its_end() -> None:
    program = "import sys; print('out', sys.argv[1]); print('err', file=sys.stderr); sys.exit(3)"

    completed = run_trainer_command([sys.executable, "-c", program], ["preflight"], timeout_seconds=PATIENCE_SECONDS)

    assert (completed.exit_code, completed.stdout, completed.stderr) == (3, "out preflight\n", "err\n")


def test_a_death_by_signal_has_the_shells_exit_code() -> None:
    completed = run_trainer_command(["sh", "-c", "kill -9 $$"], [], timeout_seconds=PATIENCE_SECONDS)

    assert completed.exit_code == 137


def test_output_is_bounded_to_its_end() -> None:
    program = "for n in range(1_000_000): print(n)"

    completed = run_trainer_command([sys.executable, "-c", program], [], timeout_seconds=PATIENCE_SECONDS)

    assert len(completed.stdout) == MAX_OUTPUT_BYTES
    assert completed.stdout.endswith("999998\n999999\n")


def test_a_command_that_takes_too_long_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    # Held open for writing by the command and its child alone: it ends when both are gone.
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)

    with pytest.raises(InfrastructureError, match=r"took longer than 0\.5 seconds") as caught:
        run_trainer_command(
            ["sh", "-c", f"exec 3> {fifo}; echo x >&3; sleep 1000 & wait"], ["prefetch"], timeout_seconds=0.5
        )

    assert caught.value.failure_code == "trainer_command_timed_out"
    select.select([reader], [], [], PATIENCE_SECONDS)
    os.set_blocking(reader, True)
    with os.fdopen(reader, "rb") as stream:
        assert stream.read() in (b"x\n", b"")


def test_a_process_left_behind_does_not_hold_up_the_end() -> None:
    completed = run_trainer_command(["sh", "-c", "sleep 5 & echo done"], [], timeout_seconds=PATIENCE_SECONDS)

    assert (completed.exit_code, completed.stdout) == (0, "done\n")


def test_a_command_that_is_shown_prints_where_we_print_while_it_runs(capfd: pytest.CaptureFixture[str]) -> None:
    program = (
        "import os, sys; print('out', sys.argv[1]); print('err', file=sys.stderr); "
        "sys.exit([str(os.fstat(stream).st_ino) for stream in (1, 2)] != sys.argv[2:])"
    )
    ours = [str(os.fstat(stream).st_ino) for stream in (1, 2)]

    ended_with = show_trainer_command(
        [sys.executable, "-c", program], ["prefetch", *ours], timeout_seconds=PATIENCE_SECONDS
    )

    assert ended_with == 0
    assert tuple(capfd.readouterr()) == ("out prefetch\n", "err\n")


def test_a_command_that_is_shown_keeps_its_exit_code_and_sees_no_more_than_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_LABELLED_DATA", "secret")

    for program, expected in (('test -z "$AIRFLOW_CONN_LABELLED_DATA" && exit 3', 3), ("kill -9 $$", 137)):
        assert show_trainer_command(["sh", "-c", program], [], timeout_seconds=PATIENCE_SECONDS) == expected


def test_a_command_that_is_shown_and_takes_too_long_is_killed() -> None:
    with pytest.raises(InfrastructureError, match=r"`prefetch` took longer than 0\.5 seconds") as caught:
        show_trainer_command(["sh", "-c", "exec sleep 1000"], ["prefetch"], timeout_seconds=0.5)

    assert caught.value.failure_code == "trainer_command_timed_out"


@pytest.mark.parametrize("run", [run_trainer_command, show_trainer_command])
def test_a_program_that_the_system_refuses_to_start_is_named(tmp_path: Path, run: Callable[..., object]) -> None:
    program = tmp_path / "trainer"
    program.write_bytes(b"\0 no program")
    program.chmod(0o755)

    with pytest.raises(PlatformError, match="cannot be started: Exec format error") as caught:
        run([str(program)], [], timeout_seconds=PATIENCE_SECONDS)

    assert caught.value.failure_code == "trainer_cannot_be_started"
