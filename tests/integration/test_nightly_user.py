"""What nobody sits and watches: runs by the schedule, rows that come late, retries, and a clear the next morning."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from demo.airflow_rest import AirflowRestError
from demo.sample_data.load import load_sample_database
from integration.conftest import RUN_LIMIT_SECONDS, NightlyJob
from peft_retraining.publishing.adapter_store import AdapterStore
from peft_retraining.run_store.records import TrainingAttempt, TrainingRun
from peft_retraining.run_store.states import RunState
from training_contract.adapter_manifest import read_verified_manifest, resolve_latest
from training_contract.documents import read_document
from training_contract.exit_codes import ExitCode
from training_contract.locations import RunDirectory, path_component
from training_contract.result import TrainingResult

pytestmark = pytest.mark.integration

LATE, TOO_FEW, CLEARED = "late_rows", "too_few_rows", "cleared"
FAILS_ONCE, FAILS_FOR_GOOD = "fails_once", "fails_for_good"
WAIT, TRAIN = "wait_for_labelled_data", "train_adapter"


def wait_for(look: Callable[[], Any], what: str) -> Any:
    """Look until there is something to see, and return it."""
    deadline = time.monotonic() + RUN_LIMIT_SECONDS
    while not (seen := look()):
        assert time.monotonic() < deadline, f"waited {RUN_LIMIT_SECONDS} s in vain for {what}"
        time.sleep(0.1)
    return seen


def worker_is_gone(nightly_job: NightlyJob, dag_id: str) -> bool:
    """Tell whether the scheduler knows that the process which deferred has ended; it may do so 5 seconds later.

    When a trigger fires before that, Airflow 3.3 takes the old process's end for the resumed task's and fails it.
    """
    lines = nightly_job.airflow.log_file("scheduler").read_text(errors="replace").splitlines()
    finished = f"TaskInstance Finished: dag_id={dag_id}, task_id={WAIT},"
    return any(finished in line and "state=deferred" in line for line in lines)


def add_row(database: Path, *, created_at: datetime) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS ask_ai_queries"
            " (id INTEGER PRIMARY KEY, original_query TEXT, suggestions TEXT, created_at TEXT)"
        )
        suggestions = json.dumps([{"description": "turning on the light", "confidence": 0.9}])
        connection.execute(
            "INSERT INTO ask_ai_queries (original_query, suggestions, created_at) VALUES (?, ?, ?)",
            (f"a question of {created_at}", suggestions, f"{created_at:%Y-%m-%d %H:%M:%S}"),
        )
        connection.commit()


@pytest.fixture(scope="module")
def run_ids(nightly_job: NightlyJob) -> dict[str, str]:
    """Start a run of each DAG, side by side; the scheduled ones begin by being switched on."""
    rest = nightly_job.airflow.rest
    days_ago = datetime.now(UTC) - timedelta(days=3)
    for number in range(2):
        add_row(nightly_job.database(TOO_FEW), created_at=days_ago + timedelta(seconds=number))
    load_sample_database(nightly_job.database(CLEARED), end=days_ago)
    for dag_id in (LATE, TOO_FEW, FAILS_ONCE, FAILS_FOR_GOOD, CLEARED):
        rest.unpause(dag_id)
    return {
        **{dag_id: rest.trigger(dag_id) for dag_id in (FAILS_ONCE, FAILS_FOR_GOOD, CLEARED)},
        **{
            dag_id: wait_for(lambda dag_id=dag_id: rest.dag_runs(dag_id), f"the schedule of {dag_id}")[0]["dag_run_id"]
            for dag_id in (LATE, TOO_FEW)
        },
    }


def end_of(nightly_job: NightlyJob, dag_id: str, run_id: str) -> tuple[str, TrainingRun]:
    """Wait for a run's end; return Airflow's state and our record."""
    state = nightly_job.airflow.rest.wait_for_run(dag_id, run_id, timeout_seconds=RUN_LIMIT_SECONDS)
    return state, nightly_job.record(dag_id, run_id)


def tries_of(record: TrainingRun, task_id: str) -> list[TrainingAttempt]:
    assert record.attempts is not None
    tries = [attempt for attempt in record.attempts if attempt.key.task_id == task_id]
    return sorted(tries, key=lambda attempt: attempt.key.try_number)


@pytest.fixture(scope="module")
def late_run(nightly_job: NightlyJob, run_ids: dict[str, str]) -> TrainingRun:
    """The scheduled run whose database appears only once the run waits for it in the triggerer."""
    rest, run_id = nightly_job.airflow.rest, run_ids[LATE]
    assert not nightly_job.database(LATE).exists()
    wait_for(lambda: rest.task_instance(LATE, run_id, WAIT)["state"] == "deferred", "the sensor to defer")
    wait_for(lambda: worker_is_gone(nightly_job, LATE), "the scheduler to see that the waiting task's worker is gone")
    load_sample_database(nightly_job.database(LATE), end=datetime.now(UTC) - timedelta(days=2))
    state, record = end_of(nightly_job, LATE, run_id)
    assert state == "success", record.failure
    return record


def test_a_scheduled_run_waits_for_its_rows_and_publishes(nightly_job: NightlyJob, late_run: TrainingRun) -> None:
    run = nightly_job.airflow.rest.dag_run(LATE, late_run.run_id)
    latest = resolve_latest(nightly_job.adapters_directory, LATE)

    assert run["run_type"] == late_run.facts.run_type == late_run.facts.triggered_by == "scheduled"
    assert late_run.state is RunState.SUCCEEDED
    assert late_run.facts.window_ends_at == datetime.fromisoformat(run["data_interval_end"])
    assert late_run.facts.new_rows_since is None
    assert late_run.facts.new_row_count and late_run.facts.new_row_count > 4000
    assert late_run.facts.adapter_path == str(latest)
    assert read_verified_manifest(latest).run_id == late_run.run_id


def test_the_wait_is_one_try_of_the_sensor(late_run: TrainingRun) -> None:
    [attempt] = tries_of(late_run, WAIT)

    assert (attempt.key.try_number, attempt.state, attempt.facts.failure) == (1, RunState.SUCCEEDED, None)


def test_a_scheduled_run_announces_its_adapter_exactly_once(nightly_job: NightlyJob, late_run: TrainingRun) -> None:
    [event] = nightly_job.airflow.rest.asset_events(source_dag_id=LATE, source_run_id=late_run.run_id)

    assert event["extra"]["adapter_version"] == late_run.facts.adapter_version


def test_too_few_rows_until_the_deadline_skip_a_scheduled_run(nightly_job: NightlyJob, run_ids: dict[str, str]) -> None:
    run_id = run_ids[TOO_FEW]
    _, record = end_of(nightly_job, TOO_FEW, run_id)
    rest = nightly_job.airflow.rest

    assert {task["state"] for task in rest.task_instances(TOO_FEW, run_id)} == {"skipped"}
    assert "2 new rows, 5 are needed; waiting" in rest.task_log(TOO_FEW, run_id, WAIT)
    assert record.state is RunState.SKIPPED
    assert record.facts.new_row_count == 2
    assert record.failure is not None
    assert record.failure.failure_reason.startswith("not enough new data: 2 new labelled rows in all and before ")
    assert record.failure.failure_reason.endswith("; 5 are needed")


def test_a_training_that_fails_for_now_succeeds_on_its_second_try(
    nightly_job: NightlyJob, run_ids: dict[str, str]
) -> None:
    run_id = run_ids[FAILS_ONCE]
    state, record = end_of(nightly_job, FAILS_ONCE, run_id)
    first, second = tries_of(record, TRAIN)

    assert (state, record.state, record.failure) == ("success", RunState.SUCCEEDED, None)
    assert nightly_job.airflow.rest.task_instance(FAILS_ONCE, run_id, TRAIN)["try_number"] == 2
    assert first.facts.failure is not None
    assert (first.state, first.facts.failure.failure_code) == (RunState.FAILED, "model_download_failed")
    assert "planned failure that passes" in first.facts.failure.failure_reason
    assert (first.facts.exit_code, first.facts.attempt_directory) == (ExitCode.MODEL_DOWNLOAD_FAILED, 1)
    assert (second.state, second.facts.failure) == (RunState.SUCCEEDED, None)
    assert (second.facts.exit_code, second.facts.attempt_directory) == (0, 2)


def test_xcom_is_that_of_the_last_try(nightly_job: NightlyJob, run_ids: dict[str, str]) -> None:
    rest, run_id = nightly_job.airflow.rest, run_ids[FAILS_ONCE]
    end_of(nightly_job, FAILS_ONCE, run_id)

    assert rest.xcom(FAILS_ONCE, run_id, TRAIN)["attempt_directory"] == 2
    with pytest.raises(AirflowRestError, match="404"):
        rest.xcom(FAILS_ONCE, run_id, TRAIN, "training_failure")


def test_a_training_that_fails_for_good_is_not_retried(nightly_job: NightlyJob, run_ids: dict[str, str]) -> None:
    run_id = run_ids[FAILS_FOR_GOOD]
    state, record = end_of(nightly_job, FAILS_FOR_GOOD, run_id)
    task = nightly_job.airflow.rest.task_instance(FAILS_FOR_GOOD, run_id, TRAIN)
    [attempt] = tries_of(record, TRAIN)

    assert (state, record.state, record.failed_task_id) == ("failed", RunState.FAILED, TRAIN)
    assert (task["state"], task["try_number"], task["max_tries"]) == ("failed", 1, 1)
    assert attempt.facts.failure is not None
    assert (attempt.facts.failure.failure_code, attempt.facts.failure.retryable) == ("uncaught_exception", False)


def test_a_cleared_run_trains_the_same_rows_again_and_replaces_its_adapter(
    nightly_job: NightlyJob, run_ids: dict[str, str]
) -> None:
    rest, run_id = nightly_job.airflow.rest, run_ids[CLEARED]
    state, before = end_of(nightly_job, CLEARED, run_id)
    assert state == "success", before.failure
    assert before.facts.window_ends_at is not None
    # A row of this very window that comes too late for the frozen rows.
    add_row(nightly_job.database(CLEARED), created_at=before.facts.window_ends_at - timedelta(hours=1))

    rest.request(
        "POST", f"/api/v2/dags/{CLEARED}/dagRuns/{run_id}/clear", body={"dry_run": False, "only_failed": False}
    )
    state, after = end_of(nightly_job, CLEARED, run_id)

    assert (state, after.state) == ("success", RunState.SUCCEEDED), after.failure
    run_directory = RunDirectory(nightly_job.runs_directory / CLEARED / path_component(run_id))
    first, second = (read_document(attempt.result_file, TrainingResult) for attempt in run_directory.attempts())
    assert first.data_digest == second.data_digest == before.facts.data_digest == after.facts.data_digest
    assert after.facts.new_row_count == (before.facts.new_row_count or 0) + 1
    assert after.facts.window_ends_at == before.facts.window_ends_at
    latest = resolve_latest(nightly_job.adapters_directory, CLEARED)
    assert {path.name for path in latest.parent.iterdir()} == {
        before.facts.adapter_version,
        after.facts.adapter_version,
    }
    assert latest.name == after.facts.adapter_version != before.facts.adapter_version
    assert read_verified_manifest(latest).files == second.adapter_files
    assert len(AdapterStore(nightly_job.adapters_directory, CLEARED).versions()) == 2
    assert [attempt.state for attempt in tries_of(after, TRAIN)] == [RunState.SUCCEEDED] * 2
    announced = [event["extra"]["adapter_version"] for event in rest.asset_events(source_dag_id=CLEARED)]
    assert announced == [before.facts.adapter_version, after.facts.adapter_version]
