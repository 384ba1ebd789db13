"""No trainer outlives its task, whoever ends the task, and however."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from integration.conftest import RUN_LIMIT_SECONDS, NightlyJob
from peft_retraining.run_store.states import RunState
from training_contract.locations import path_component

pytestmark = pytest.mark.integration

DAG = "nightly_second_adapter"
_WAIT_SECONDS = 60.0


def processes_of(directory: Path) -> dict[int, str]:
    """Return the processes that have a run's directory on their command line."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(directory) in command:
            found[int(path.parent.name)] = command
    return found


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited {_WAIT_SECONDS:.0f} s in vain for: {what}"
        time.sleep(0.1)


def hanging_run(nightly_job: NightlyJob) -> tuple[str, Path]:
    """Start a run whose trainer hangs; return its id and its directory when the trainer is at it."""
    run_id = nightly_job.airflow.rest.trigger(DAG, conf={"peft_settings": {"behaviour": "hang"}})
    directory = nightly_job.runs_directory / DAG / path_component(run_id)
    stdout = directory / "attempt-1" / "stdout.log"
    wait_until(lambda: stdout.exists() and "hanging" in stdout.read_text(), "the trainer to begin")
    return run_id, directory


def parent_of(process_id: int) -> int:
    return int(Path(f"/proc/{process_id}/stat").read_text().rsplit(")", 1)[1].split()[1])


def test_a_killed_task_takes_its_trainer_with_it(nightly_job: NightlyJob) -> None:
    run_id, directory = hanging_run(nightly_job)
    trainers = processes_of(directory)
    (task,) = {parent_of(trainer) for trainer in trainers} - set(trainers)
    assert len(trainers) == 2  # the trainer and its parent

    os.kill(task, signal.SIGKILL)

    wait_until(lambda: not processes_of(directory), "the trainer to end")
    state = nightly_job.airflow.rest.wait_for_run(DAG, run_id, timeout_seconds=RUN_LIMIT_SECONDS)
    assert state == "failed"
    wait_until(lambda: nightly_job.record(DAG, run_id).state is RunState.FAILED, "the run's row to be closed")
    failure = nightly_job.record(DAG, run_id).failure
    assert failure is not None
    assert failure.failure_code == "task_ended_without_word"


def test_a_task_that_is_marked_failed_stops_its_trainer(nightly_job: NightlyJob) -> None:
    run_id, directory = hanging_run(nightly_job)

    nightly_job.airflow.rest.request(
        "PATCH", f"/api/v2/dags/{DAG}/dagRuns/{run_id}/taskInstances/train_adapter", body={"new_state": "failed"}
    )

    wait_until(lambda: not processes_of(directory), "the trainer to end")
    ending = (directory / "attempt-1" / "process_exit.json").read_text()
    assert '"stop_requested": true' in ending
