"""The training task: what becomes of its trainer, a real process, when the task is interrupted."""

from __future__ import annotations

import json
import os
import shlex
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowTaskTimeout
from sqlalchemy import create_engine

from peft_retraining.container.follow import follow
from peft_retraining.errors import FailureClass
from peft_retraining.operators import train_adapter
from peft_retraining.operators.preflight import PreflightOperator
from peft_retraining.operators.snapshot_training_data import SnapshotTrainingDataOperator
from peft_retraining.operators.train_adapter import TrainAdapterOperator
from peft_retraining.operators.training_failure import TrainingFailed
from peft_retraining.recording import FailedForGood, FailedForNow
from peft_retraining.run_context import run_directory_of
from peft_retraining.run_store.records import TrainingAttempt
from peft_retraining.run_store.states import RunState
from peft_retraining.run_store.store import RunStore
from peft_retraining.settings import Runner, Settings
from training_contract.locations import RunDirectory

REPOSITORY = Path(__file__).resolve().parents[3]
TRAINER_PATH = ":".join(str(REPOSITORY / folder) for folder in ("tests", "trainer_image", "plugins"))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunStore:
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    monkeypatch.setenv("AIRFLOW_CONN_PEFT_RETRAINING_DB", url)
    return RunStore.open(create_engine(url))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    adapters = tmp_path / "adapters"
    adapters.mkdir()
    return Settings(
        runner=Runner.PROCESS,
        trainer_command=shlex.join(["env", f"PYTHONPATH={TRAINER_PATH}", sys.executable, "-m", "torch_free_trainer"]),
        runs_directory=str(tmp_path / "runs"),
        adapters_directory=str(adapters),
        peft_settings={"behaviour": "hang"},
        train_timeout_seconds=90,
    )


@pytest.fixture
def run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Settings) -> RunDirectory:
    """A run whose earlier tasks are done."""
    database = tmp_path / "labelled.db"
    monkeypatch.setenv("AIRFLOW_CONN_LABELLED_DATA", f"sqlite:///{database}")
    answer = json.dumps([{"description": "turning on the light", "confidence": 0.9}])
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE ask_ai_queries (original_query TEXT, suggestions TEXT, created_at TEXT)")
        connection.executemany(
            "INSERT INTO ask_ai_queries VALUES (?, ?, '2026-11-10 12:00:00')",
            [(f"question {number}", answer) for number in range(20)],
        )
        connection.commit()
    for operator in (SnapshotTrainingDataOperator, PreflightOperator):
        task = operator(task_id=operator.__name__, settings=settings)
        task.execute(context_of(task.task_id))
    return run_directory_of(context_of("train_adapter"), settings)


def context_of(task_id: str) -> Any:
    """Airflow's context, as far as the tasks use it."""
    end = datetime(2026, 11, 11, 2, tzinfo=UTC)
    return {
        "ti": SimpleNamespace(dag_id="d", run_id="r", task_id=task_id, map_index=-1, try_number=1),
        "dag_run": SimpleNamespace(run_type="manual", data_interval_start=None, data_interval_end=end, run_after=end),
        "params": {},
    }


def once_it_hangs(run_directory: RunDirectory, interrupt: Callable[[], None]) -> Callable[[float], None]:
    """Return a pause between two looks at the trainer that interrupts once the trainer is in the middle of its work."""
    pending = [interrupt]

    def pause(seconds: float) -> None:
        stdout = run_directory.attempt(1).stdout_file
        if pending and stdout.exists() and "hanging" in stdout.read_text():
            pending.pop()()
        time.sleep(seconds / 10)

    return pause


def processes_of(run_directory: RunDirectory) -> list[str]:
    """Return the command lines of the processes that work on a run."""
    commands = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(run_directory.root) in command:
            commands.append(command)
    return commands


def training_of(store: RunStore) -> TrainingAttempt:
    run = store.run_of("d", "r")
    assert run is not None
    assert run.attempts is not None
    [attempt] = [attempt for attempt in run.attempts if attempt.key.task_id == "train_adapter"]
    return attempt


def test_a_training_that_takes_too_long_is_stopped_and_leaves_its_evidence(
    store: RunStore, settings: Settings, run_directory: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen_running: list[str] = []

    def time_out() -> None:
        seen_running.extend(processes_of(run_directory))
        raise AirflowTaskTimeout("Timeout, PID: 1")

    monkeypatch.setattr(train_adapter, "follow", partial(follow, sleep=once_it_hangs(run_directory, time_out)))
    operator = TrainAdapterOperator(task_id="train_adapter", settings=settings)

    with pytest.raises(FailedForGood) as caught:
        operator.execute(context_of("train_adapter"))

    assert len(seen_running) == 2  # the trainer and its parent
    assert processes_of(run_directory) == []
    attempt = training_of(store)
    with pytest.raises(ChildProcessError):  # its end was collected: no zombie stays with the worker
        os.waitpid(attempt.facts.process_id or 0, os.WNOHANG)
    failure = attempt.facts.failure
    assert attempt.state is RunState.FAILED
    assert failure is not None
    assert (failure.failure_code, failure.failure_class, failure.retryable) == (
        "training_timed_out",
        FailureClass.USER,
        False,
    )
    assert "longer than 90 seconds" in failure.failure_reason
    assert "train_timeout_seconds" in failure.remedy
    assert attempt.facts.stdout is not None
    assert attempt.facts.stdout.head == "a line on stdout\nhanging\n"
    assert attempt.facts.stderr is not None
    assert attempt.facts.stderr.head == "a line on stderr\n"
    assert attempt.facts.signal == 15
    error = caught.value.error
    assert isinstance(error, TrainingFailed)
    assert error.evidence["phase"] == "training"
    assert error.evidence["stdout"]["head"] == "a line on stdout\nhanging\n"


def test_a_task_that_is_killed_from_another_thread_stops_its_trainer(
    store: RunStore, settings: Settings, run_directory: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator = TrainAdapterOperator(task_id="train_adapter", settings=settings)
    killing = threading.Thread(target=operator.on_kill)
    monkeypatch.setattr(train_adapter, "follow", partial(follow, sleep=once_it_hangs(run_directory, killing.start)))

    with pytest.raises(FailedForNow):
        operator.execute(context_of("train_adapter"))
    killing.join()

    assert processes_of(run_directory) == []
    attempt = training_of(store)
    assert attempt.state is RunState.FAILED
    assert attempt.facts.failure is not None
    assert (attempt.facts.failure.failure_code, attempt.facts.failure.retryable) == ("stopped", True)
    assert attempt.facts.stdout is not None
    assert "hanging" in attempt.facts.stdout.head


def test_on_kill_before_there_is_a_trainer_does_nothing(settings: Settings) -> None:
    TrainAdapterOperator(task_id="train_adapter", settings=settings).on_kill()
