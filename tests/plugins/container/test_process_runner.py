from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from peft_retraining.container.evidence_collection import collect_evidence
from peft_retraining.container.process_runner import ProcessRunner, RunningProcess
from peft_retraining.container.trainer_command import trainer_environment
from peft_retraining.errors import PlatformError
from training_contract.lifeline import ProcessIdentity
from training_contract.locations import AttemptDirectory, RunDirectory

REPOSITORY = Path(__file__).resolve().parents[3]
PATIENCE_SECONDS = 60.0

TRAINER = """
import sys
from pathlib import Path
from peft_trainer.parent import supervise
from training_contract.locations import RunDirectory
command, flag, directory, other, number = sys.argv[1:]
if (command, flag, other) != ("train", "--run-dir", "--attempt"):
    sys.exit(2)
run_directory = RunDirectory(Path(directory))
child = [sys.executable, "-c", (run_directory.root / "child.py").read_text(), directory]
sys.exit(supervise(child, run_directory.attempt(int(number))))
"""

ANNOUNCE = """
import os, signal, sys
with open(sys.argv[1] + "/fifo", "w") as fifo:
    fifo.write(str(os.getpid()))
"""

TASK = """
import json, os, sys
from pathlib import Path
from peft_retraining.container.process_runner import ProcessRunner
from training_contract.locations import RunDirectory
run_directory = RunDirectory(Path(sys.argv[2]))
ProcessRunner(json.loads(sys.argv[1]), environment=os.environ).start(run_directory, run_directory.attempt(1))
sys.stdin.read()
"""


@pytest.fixture
def environment() -> dict[str, str]:
    path = f"{REPOSITORY / 'plugins'}{os.pathsep}{REPOSITORY / 'trainer_image'}"
    return {**trainer_environment(os.environ), "PYTHONPATH": path}


@pytest.fixture
def trainer_command(tmp_path: Path) -> list[str]:
    program = tmp_path / "trainer.py"
    program.write_text(TRAINER)
    return [sys.executable, str(program)]


@pytest.fixture
def run_directory(tmp_path: Path) -> RunDirectory:
    root = tmp_path / "run"
    root.mkdir()
    os.mkfifo(root / "fifo")
    return RunDirectory(root)


@pytest.fixture
def attempt(run_directory: RunDirectory) -> AttemptDirectory:
    return run_directory.open_attempt()


def announced(run_directory: RunDirectory) -> int:
    """Wait until the child has said that it is up; return its number."""
    return int((run_directory.root / "fifo").read_text())


def wait(process_id: int) -> None:
    """Wait for a process's end."""
    try:
        descriptor = os.pidfd_open(process_id)
    except ProcessLookupError:
        return
    assert select.select([descriptor], [], [], PATIENCE_SECONDS)[0], f"process {process_id} still runs"
    os.close(descriptor)


def ended(trainer: RunningProcess) -> int | None:
    wait(ProcessIdentity.parse(trainer.identity).process_id)
    return trainer.poll()


def test_a_trainer_is_started_followed_to_its_end_and_leaves_its_evidence(
    trainer_command: list[str], environment: dict[str, str], run_directory: RunDirectory, attempt: AttemptDirectory
) -> None:
    child = "import os, sys; print(sorted(os.environ)); print('err', file=sys.stderr); sys.exit(20)"
    (run_directory.root / "child.py").write_text(child)

    trainer = ProcessRunner(trainer_command, environment=environment).start(run_directory, attempt)

    assert ended(trainer) == 20
    evidence = collect_evidence(attempt, exit_code=trainer.poll(), report=trainer.report())
    assert (evidence.exit_code, evidence.stderr.head, evidence.runner_error) == (20, "err\n", "")
    assert "PEFT_TRAINER_LIFELINE" in evidence.stdout.head


def test_the_trainer_sees_nothing_of_airflows_environment(
    trainer_command: list[str],
    run_directory: RunDirectory,
    attempt: AttemptDirectory,
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_LABELLED_DATA", "postgresql://user:secret@host/db")
    (run_directory.root / "child.py").write_text("import os; print(dict(os.environ))")
    env_command = ["/usr/bin/env", f"PYTHONPATH={environment['PYTHONPATH']}", *trainer_command]

    trainer = ProcessRunner(env_command).start(run_directory, attempt)

    assert ended(trainer) == 0
    printed = attempt.stdout_file.read_text()
    assert "'PATH'" in printed
    assert "AIRFLOW" not in printed


def test_a_trainer_that_is_stopped_may_end_in_its_own_way(
    trainer_command: list[str], environment: dict[str, str], run_directory: RunDirectory, attempt: AttemptDirectory
) -> None:
    handler = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))"
    (run_directory.root / "child.py").write_text(f"import signal, sys\n{handler}\n{ANNOUNCE}\nsignal.pause()")
    trainer = ProcessRunner(trainer_command, environment=environment).start(run_directory, attempt)
    announced(run_directory)
    assert trainer.poll() is None

    trainer.stop(PATIENCE_SECONDS)
    trainer.stop(PATIENCE_SECONDS)

    assert trainer.poll() == 75
    assert collect_evidence(attempt, exit_code=75).stop_requested


def test_a_trainer_whose_parent_does_not_stop_is_killed(
    trainer_command: list[str], environment: dict[str, str], run_directory: RunDirectory, attempt: AttemptDirectory
) -> None:
    (run_directory.root / "child.py").write_text(f"{ANNOUNCE}\nsignal.pause()")
    trainer = ProcessRunner(trainer_command, environment=environment).start(run_directory, attempt)
    child = announced(run_directory)
    parent = ProcessIdentity.parse(trainer.identity).process_id
    os.kill(parent, signal.SIGSTOP)

    trainer.stop(grace_seconds=0.1)

    assert ended(trainer) == 137
    wait(child)


def test_no_trainer_survives_its_task(
    trainer_command: list[str], environment: dict[str, str], run_directory: RunDirectory, attempt: AttemptDirectory
) -> None:
    (run_directory.root / "child.py").write_text(f"{ANNOUNCE}\nsignal.pause()")
    with subprocess.Popen(
        [sys.executable, "-c", TASK, json.dumps(trainer_command), str(run_directory.root)],
        env=environment,
        stdin=subprocess.PIPE,
    ) as task:
        child = announced(run_directory)
        task.kill()

    wait(child)


def test_nor_does_one_that_a_wrapper_started(
    trainer_command: list[str], environment: dict[str, str], run_directory: RunDirectory, attempt: AttemptDirectory
) -> None:
    (run_directory.root / "child.py").write_text(f"{ANNOUNCE}\nsignal.pause()")
    wrapped = ["sh", "-c", '"$@"; exit $?', "wrapper", *trainer_command]
    with subprocess.Popen(
        [sys.executable, "-c", TASK, json.dumps(wrapped), str(run_directory.root)],
        env=environment,
        stdin=subprocess.PIPE,
    ) as task:
        child = announced(run_directory)
        task.kill()

    wait(child)


def test_a_command_that_does_not_exist_is_named(run_directory: RunDirectory, attempt: AttemptDirectory) -> None:
    with pytest.raises(PlatformError) as caught:
        ProcessRunner(["/no/such/python"]).start(run_directory, attempt)

    assert caught.value.failure_code == "trainer_environment_missing"


def test_what_a_trainer_that_never_came_up_said_is_evidence(
    run_directory: RunDirectory, attempt: AttemptDirectory
) -> None:
    trainer = ProcessRunner([sys.executable, "-I", "-S", "-m", "peft_trainer"]).start(run_directory, attempt)

    assert ended(trainer) == 1
    evidence = collect_evidence(attempt, exit_code=trainer.poll(), report=trainer.report())
    assert "No module named peft_trainer" in evidence.runner_error
