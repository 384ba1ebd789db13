"""Waiting for labelled rows: which runs wait, and what they do when waiting is over."""

from __future__ import annotations

import dataclasses
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowSkipException, TaskDeferred
from sqlalchemy import create_engine

from documents_of_the_contract import EXAMPLES
from peft_retraining.data_watch.labelled_table import LabelledTable
from peft_retraining.recording import FailedForGood
from peft_retraining.run_store.records import TrainingRun
from peft_retraining.run_store.states import RunState
from peft_retraining.run_store.store import RunStore
from peft_retraining.sensors.labelled_data import LabelledDataSensor
from peft_retraining.settings import Settings
from peft_retraining.triggers.labelled_data import LabelledDataTrigger
from training_contract.adapter_manifest import AdapterManifest
from training_contract.documents import write_document

STARTS_AT = datetime(2026, 11, 10, 2, tzinfo=UTC)
ENDS_AT = datetime(2026, 11, 11, 2, tzinfo=UTC)


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "labelled.db"
    monkeypatch.setenv("AIRFLOW_CONN_LABELLED_DATA", f"sqlite:///{path}")
    return path


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunStore:
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    monkeypatch.setenv("AIRFLOW_CONN_PEFT_RETRAINING_DB", url)
    return RunStore.open(create_engine(url))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        min_new_rows=3,
        data_wait_seconds=600,
        data_poll_interval_seconds=30,
        adapters_directory=str(tmp_path / "adapters"),
        runs_directory=str(tmp_path / "runs"),
    )


def context_of(run_type: str) -> Any:
    """Airflow's context, as far as a sensor uses it."""
    return {
        "ti": SimpleNamespace(dag_id="d", run_id="r", task_id="wait", map_index=-1, try_number=1),
        "dag_run": SimpleNamespace(
            run_type=run_type, data_interval_start=STARTS_AT, data_interval_end=ENDS_AT, run_after=ENDS_AT
        ),
        "params": {},
    }


def sensor(settings: Settings) -> LabelledDataSensor:
    return LabelledDataSensor(task_id="wait", settings=settings)


def add_rows(path: Path, count: int) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE ask_ai_queries (original_query TEXT, suggestions TEXT, created_at TEXT)")
        connection.executemany("INSERT INTO ask_ai_queries VALUES ('q', '[]', ?)", [("2026-11-10 12:00:00",)] * count)
        connection.commit()


def deferral_of(settings: Settings, context: Any) -> TaskDeferred:
    with pytest.raises(TaskDeferred) as deferred:
        sensor(settings).execute(context)
    return deferred.value


def record_of(store: RunStore) -> TrainingRun:
    run = store.run_of("d", "r")
    assert run is not None
    return run


@pytest.mark.parametrize("run_type", ["scheduled", "manual", "backfill"])
def test_enough_rows_let_any_run_go_on_at_once(
    database: Path, store: RunStore, settings: Settings, run_type: str
) -> None:
    add_rows(database, 3)

    answer = sensor(settings).execute(context_of(run_type))

    assert (answer["new_row_count"], answer["window_ends_at"]) == (3, ENDS_AT.isoformat())
    assert record_of(store).facts.new_row_count == 3


def test_a_scheduled_run_hands_over_to_the_triggerer(database: Path, store: RunStore, settings: Settings) -> None:
    add_rows(database, 2)
    before = datetime.now(UTC)

    deferred = deferral_of(settings, context_of("scheduled"))

    assert isinstance(deferred.trigger, LabelledDataTrigger)
    _, arguments = deferred.trigger.serialize()
    deadline = datetime.fromisoformat(arguments.pop("deadline_at"))
    assert timedelta(seconds=600) <= deadline - before < timedelta(seconds=660)
    assert arguments == {
        "conn_id": "labelled_data",
        "table": dataclasses.asdict(LabelledTable.of(settings)),
        "new_rows_since": None,
        "ends_at": ENDS_AT.isoformat(),
        "min_new_rows": 3,
        "poll_interval_seconds": 30.0,
    }
    assert deferred.method_name == "resume"
    # Airflow's own time-out comes later, else the run would fail and not be skipped.
    assert deferred.timeout > timedelta(seconds=600)
    assert record_of(store).state is RunState.RUNNING


def test_a_scheduled_run_also_waits_for_a_database_that_is_not_there_yet(
    database: Path, store: RunStore, settings: Settings
) -> None:
    deferral_of(settings, context_of("scheduled"))

    assert not database.exists()
    assert record_of(store).state is RunState.RUNNING


def test_a_missing_table_is_not_waited_for(database: Path, store: RunStore, settings: Settings) -> None:
    add_rows(database, 3)

    with pytest.raises(FailedForGood, match="labelled_table_missing"):
        sensor(dataclasses.replace(settings, labelled_table="nowhere")).execute(context_of("scheduled"))

    assert record_of(store).state is RunState.FAILED


@pytest.mark.parametrize("run_type", ["manual", "backfill"])
def test_waiting_cannot_help_other_runs_so_they_are_skipped_at_once(
    database: Path, store: RunStore, settings: Settings, run_type: str
) -> None:
    add_rows(database, 2)

    with pytest.raises(AirflowSkipException, match=r"2 new labelled rows .*; 3 are needed"):
        sensor(settings).execute(context_of(run_type))

    assert record_of(store).state is RunState.SKIPPED


def test_a_scheduled_run_that_may_not_wait_is_skipped_at_once(
    database: Path, store: RunStore, settings: Settings
) -> None:
    add_rows(database, 2)

    with pytest.raises(AirflowSkipException):
        sensor(dataclasses.replace(settings, data_wait_seconds=0)).execute(context_of("scheduled"))


def test_enough_rows_after_the_wait_let_the_run_go_on(database: Path, store: RunStore, settings: Settings) -> None:
    context = context_of("scheduled")
    deferral_of(settings, context)

    answer = sensor(settings).resume(context, {"new_row_count": 4})

    assert answer == {"new_row_count": 4, "new_rows_since": None, "window_ends_at": ENDS_AT.isoformat()}
    assert record_of(store).facts.new_row_count == 4
    assert record_of(store).state is RunState.RUNNING


def test_too_few_rows_after_the_wait_skip_the_run_with_the_numbers(
    database: Path, store: RunStore, settings: Settings
) -> None:
    context = context_of("scheduled")
    deferral_of(settings, context)

    with pytest.raises(AirflowSkipException, match=r"2 new labelled rows in all .*; 3 are needed"):
        sensor(settings).resume(context, {"new_row_count": 2})

    run = record_of(store)
    assert run.state is RunState.SKIPPED
    assert run.failure is not None
    assert "2 new labelled rows" in run.failure.failure_reason


@pytest.mark.parametrize("retryable", [True, False])
def test_a_failure_of_the_wait_fails_the_run_and_is_not_waited_for_again(
    database: Path, store: RunStore, settings: Settings, retryable: bool
) -> None:
    context = context_of("scheduled")
    deferral_of(settings, context)
    failure = {
        "message": "the database is away",
        "failure_code": "labelled_data_unavailable",
        "failure_class": "infra",
        "retryable": retryable,
        "remedy": "start it",
    }

    with pytest.raises(FailedForGood, match="the database is away"):
        sensor(settings).resume(context, {"failure": failure})

    run = record_of(store)
    assert run.state is RunState.FAILED
    assert run.failure is not None
    assert (run.failure.failure_code, run.failure.failure_class, run.failure.remedy) == (
        "labelled_data_unavailable",
        "infra",
        "start it",
    )


def test_a_manual_run_after_a_newer_one_was_published_is_skipped_and_says_so(
    database: Path, store: RunStore, settings: Settings
) -> None:
    add_rows(database, 5)
    manifest = EXAMPLES["manifest"]
    assert isinstance(manifest, AdapterManifest)
    later = dataclasses.replace(
        manifest, version="20261111T170000Z-9f86d081", window_ends_at="2026-11-11T17:00:00+00:00"
    )
    directory = Path(settings.adapters_directory) / "assistant" / "versions" / later.version
    directory.mkdir(parents=True)
    write_document(directory / "manifest.json", later)

    with pytest.raises(AirflowSkipException, match="covers the rows up to 2026-11-11 17:00 UTC"):
        sensor(settings).execute(context_of("manual"))

    assert record_of(store).state is RunState.SKIPPED
