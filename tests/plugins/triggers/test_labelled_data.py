"""Waiting in the triggerer for late rows."""

from __future__ import annotations

import asyncio
import dataclasses
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from peft_retraining.data_watch.labelled_table import LabelledTable
from peft_retraining.settings import Settings
from peft_retraining.triggers.labelled_data import LabelledDataTrigger


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "labelled.db"
    monkeypatch.setattr("peft_retraining.triggers.labelled_data._FIRST_PAUSE_SECONDS", 0.0)
    monkeypatch.setenv("AIRFLOW_CONN_LABELLED_DATA", f"sqlite:///{path}")
    return path


def add_rows(path: Path, count: int) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS ask_ai_queries (original_query TEXT, suggestions TEXT, created_at TEXT)"
        )
        connection.executemany("INSERT INTO ask_ai_queries VALUES ('q', '[]', ?)", [("2026-11-10 12:00:00",)] * count)
    connection.close()


def trigger(*, wait_seconds: float, min_new_rows: int = 3, **changes: Any) -> LabelledDataTrigger:
    arguments = {
        "conn_id": "labelled_data",
        "table": dataclasses.asdict(LabelledTable.of(Settings())),
        "new_rows_since": "2026-11-10T02:00:00+00:00",
        "ends_at": "2026-11-11T02:00:00+00:00",
        "min_new_rows": min_new_rows,
        "poll_interval_seconds": 0.01,
        "deadline_at": (datetime.now(UTC) + timedelta(seconds=wait_seconds)).isoformat(),
        **changes,
    }
    return LabelledDataTrigger(**arguments)


async def first_event(waiting: LabelledDataTrigger) -> dict[str, Any]:
    async for event in waiting.run():
        payload: dict[str, Any] = event.payload
        return payload
    raise AssertionError("the trigger ended without an event")


def test_enough_rows_end_the_wait_at_once(database: Path) -> None:
    add_rows(database, 3)

    assert asyncio.run(first_event(trigger(wait_seconds=60))) == {"new_row_count": 3}


def test_rows_that_come_late_end_the_wait(database: Path) -> None:
    add_rows(database, 1)

    async def wait() -> dict[str, Any]:
        waiting = asyncio.create_task(first_event(trigger(wait_seconds=60)))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        await asyncio.to_thread(add_rows, database, 2)
        return await waiting

    assert asyncio.run(wait()) == {"new_row_count": 3}


def test_at_the_deadline_the_last_count_is_told(database: Path) -> None:
    add_rows(database, 1)

    assert asyncio.run(first_event(trigger(wait_seconds=0.05))) == {"new_row_count": 1}


def test_a_database_that_comes_late_ends_the_wait_too(database: Path, tmp_path: Path) -> None:
    # Made elsewhere and moved: a file that is there without its table is another failure, which is not waited for.
    made = tmp_path / "made-elsewhere.db"
    add_rows(made, 3)

    async def wait() -> dict[str, Any]:
        waiting = asyncio.create_task(first_event(trigger(wait_seconds=60)))
        await asyncio.sleep(0.05)
        made.rename(database)
        return await waiting

    assert asyncio.run(wait()) == {"new_row_count": 3}


def test_a_database_that_never_comes_is_a_failure_at_the_deadline(database: Path) -> None:
    event = asyncio.run(first_event(trigger(wait_seconds=0.05)))

    assert event["failure"]["failure_code"] == "labelled_data_missing"
    assert event["failure"]["retryable"] is True
    assert str(database) in event["failure"]["message"]


def test_a_missing_column_ends_the_wait_at_once(database: Path) -> None:
    add_rows(database, 1)
    table = {**dataclasses.asdict(LabelledTable.of(Settings())), "completion_column": "answers"}

    event = asyncio.run(first_event(trigger(wait_seconds=60, table=table)))

    assert event["failure"]["failure_code"] == "labelled_column_missing"
    assert event["failure"]["retryable"] is False


def test_the_trigger_survives_being_stored(database: Path) -> None:
    add_rows(database, 3)
    path, arguments = trigger(wait_seconds=60).serialize()

    assert path == "peft_retraining.triggers.labelled_data.LabelledDataTrigger"
    assert asyncio.run(first_event(LabelledDataTrigger(**arguments))) == {"new_row_count": 3}
