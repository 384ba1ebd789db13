from __future__ import annotations

import dataclasses
import multiprocessing
import sqlite3
import threading
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.engine import make_url

from peft_retraining.errors import FailureClass, InfrastructureError
from peft_retraining.identity import AttemptKey, training_run_id
from peft_retraining.run_store.records import (
    MAX_EXCERPT_CHARACTERS,
    AttemptFacts,
    Failure,
    OutputExcerpt,
    Progress,
    RunFacts,
)
from peft_retraining.run_store.states import RunState
from peft_retraining.run_store.store import RunStore
from peft_retraining.run_store.store_errors import RunStoreDatabaseUnsupported, RunStoreUnavailable

TRY_1 = AttemptKey(dag_id="nightly", run_id="manual__2026-11-12T02:00:00+00:00", task_id="train_adapter")
TRY_2 = dataclasses.replace(TRY_1, try_number=2)
OUT_OF_MEMORY = Failure(
    failure_code="gpu_out_of_memory",
    failure_reason="CUDA out of memory: tried to allocate 2 GiB",
    failure_class=FailureClass.USER,
    retryable=False,
    remedy="Lower per_device_train_batch_size.",
)


def at(minute: float) -> datetime:
    return datetime(2026, 11, 12, 2, 0, tzinfo=UTC) + timedelta(minutes=minute)


def test_every_fact_of_a_run_comes_back_as_it_went_in(store: RunStore) -> None:
    facts = RunFacts(
        run_type="scheduled",
        adapter_name="support",
        triggered_by="olga",
        queued_at=at(0),
        started_at=at(1),
        new_rows_since=at(-1440),
        window_ends_at=at(0),
        new_row_count=2**40,
        train_row_count=90,
        heldout_row_count=10,
        refused_row_count=3,
        refused_row_counts={"empty_completion": 2, "too_long": 1},
        data_digest="sha256:" + 64 * "a",
        base_model_name_or_path="google/flan-t5-small",
        base_model_revision="0fc9ddf",
        peft_type="LORA",
        base_heldout_loss=2.5,
        adapter_heldout_loss=1.0 / 3.0,
        adapter_version="v7",
        adapter_path="/adapters/support/v7",
        moved_latest=False,
    )
    assert all(getattr(facts, field.name) is not None for field in dataclasses.fields(facts))

    store.record_run("nightly", "r1", facts, observed_at=at(2))

    run = store.run_of("nightly", "r1")
    assert run is not None
    assert run.facts == facts
    assert (run.training_run_id, run.dag_id, run.run_id) == (training_run_id("nightly", "r1"), "nightly", "r1")
    assert (run.first_observed_at, run.updated_at, run.attempts) == (at(2), at(2), ())


def test_every_fact_of_an_attempt_comes_back_as_it_went_in(store: RunStore) -> None:
    facts = AttemptFacts(
        queued_at=at(0),
        started_at=at(1),
        ended_at=at(9),
        heartbeat_at=at(8),
        phase="training",
        progress=Progress(
            progress_percentage=12.5,
            estimated_remaining_seconds=0.1,
            global_step=2**53,
            max_steps=100,
            metrics={"loss": 0.1, "memory_bytes": 1e10},
        ),
        runner="docker",
        hostname="worker-1",
        process_id=4711,
        container_id="f" * 64,
        attempt_directory=2,
        run_directory="/runs/nightly/r1",
        log_location="/logs/1",
        exit_code=61,
        signal=9,
        oom_killed=True,
        failure=OUT_OF_MEMORY,
        stdout=OutputExcerpt(head="Zürich\n", tail="🤗\n", total_bytes=99, omitted_characters=80),
        stderr=OutputExcerpt(),
    )
    assert all(getattr(facts, field.name) is not None for field in dataclasses.fields(facts))

    store.record_attempt(TRY_1, RunState.FAILED, facts, observed_at=at(9))

    run = store.run_of(TRY_1.dag_id, TRY_1.run_id)
    assert run is not None and run.attempts is not None
    (attempt,) = run.attempts
    assert attempt.facts == facts
    assert (attempt.key, attempt.state, attempt.updated_at) == (TRY_1, RunState.FAILED, at(9))
    assert (run.state, run.failure, run.failed_task_id) == (RunState.FAILED, OUT_OF_MEMORY, "train_adapter")


def test_what_is_unknown_comes_back_as_none(store: RunStore) -> None:
    store.record_attempt(TRY_1, RunState.RUNNING)
    run = store.run_of(TRY_1.dag_id, TRY_1.run_id)
    assert run is not None and run.attempts is not None
    assert run.facts == RunFacts()
    assert run.attempts[0].facts == AttemptFacts()


def test_a_run_nobody_recorded_is_none(store: RunStore) -> None:
    assert store.run("0123456789abcdef") is None
    assert store.run_of("dag", "\x00") is None


def test_a_repeated_observation_changes_nothing(store: RunStore) -> None:
    for _ in range(3):
        store.record_attempt(TRY_1, RunState.FAILED, AttemptFacts(failure=OUT_OF_MEMORY), observed_at=at(1))
        runs = store.runs()
    assert store.runs() == runs
    assert len(runs) == 1


def test_the_clock_tells_when_an_observation_was_made_unless_the_caller_does(engine: Engine) -> None:
    times = iter([at(1), at(2)])
    store = RunStore.open(engine, now=lambda: next(times))
    store.record_attempt(TRY_1, RunState.RUNNING)
    store.record_attempt(TRY_1, RunState.RUNNING)
    (run,) = store.runs()
    assert (run.first_observed_at, run.updated_at) == (at(1), at(2))


def test_a_callback_may_be_the_first_to_tell_of_a_run(store: RunStore) -> None:
    store.record_attempt(TRY_2, RunState.FAILED, AttemptFacts(failure=OUT_OF_MEMORY), observed_at=at(2))
    store.record_attempt(TRY_1, RunState.FAILED, observed_at=at(3))
    store.record_run(TRY_1.dag_id, TRY_1.run_id, RunFacts(adapter_name="support"), observed_at=at(1))
    (run,) = store.runs(adapter_name="support")
    assert (run.state, run.failure, run.first_observed_at) == (RunState.FAILED, OUT_OF_MEMORY, at(1))


def test_a_succeeded_attempt_shows_no_failure_that_a_late_observer_adds(store: RunStore) -> None:
    store.record_attempt(TRY_1, RunState.SUCCEEDED, observed_at=at(1))
    store.record_attempt(TRY_1, RunState.FAILED, AttemptFacts(failure=OUT_OF_MEMORY), observed_at=at(2))
    run = store.run_of(TRY_1.dag_id, TRY_1.run_id)
    assert run is not None and run.attempts is not None
    assert (run.attempts[0].state, run.attempts[0].facts.failure, run.failure) == (RunState.SUCCEEDED, None, None)


def test_attempts_come_by_task_map_index_and_try(store: RunStore) -> None:
    keys = [("b", -1, 1), ("a", 1, 1), ("a", 0, 10), ("a", 0, 2)]
    for task_id, map_index, try_number in keys:
        key = dataclasses.replace(TRY_1, task_id=task_id, map_index=map_index, try_number=try_number)
        store.record_attempt(key, RunState.RUNNING)
    run = store.run_of(TRY_1.dag_id, TRY_1.run_id)
    assert run is not None and run.attempts is not None
    assert [(a.key.task_id, a.key.map_index, a.key.try_number) for a in run.attempts] == sorted(keys)


# Times


def test_times_come_back_in_utc_whatever_zone_they_came_in(store: RunStore) -> None:
    local = timezone(timedelta(hours=-5, minutes=-30))
    moment = datetime(2026, 3, 29, 2, 30, 0, 123456, tzinfo=local)
    store.record_run("dag", "run", RunFacts(started_at=moment), observed_at=moment)
    (run,) = store.runs()
    for read in (run.facts.started_at, run.first_observed_at, run.updated_at):
        assert read == moment
        assert read is not None and read.tzinfo is UTC


def test_a_naive_time_is_refused_and_nothing_is_recorded(store: RunStore) -> None:
    with pytest.raises(ValueError, match="no zone"):
        store.record_run("dag", "run", observed_at=datetime(2026, 11, 12))
    assert store.runs() == []


# Hostile values


def test_text_that_no_database_holds_is_stored_all_the_same(store: RunStore) -> None:
    hostile = "a\x00b\ud800c\udfff'; DROP TABLE training_runs; --"
    cleaned = "a\ufffdb\ufffdc\ufffd'; DROP TABLE training_runs; --"
    key = AttemptKey(dag_id=hostile, run_id=hostile, task_id=hostile)
    store.record_attempt(
        key,
        RunState.FAILED,
        AttemptFacts(
            phase=hostile,
            failure=dataclasses.replace(OUT_OF_MEMORY, failure_code=hostile, failure_reason=hostile, remedy=hostile),
            stdout=OutputExcerpt(head=hostile, tail=hostile),
            progress=Progress(metrics={hostile: 1.0}),
        ),
    )
    store.record_run(hostile, hostile, RunFacts(adapter_name=hostile, refused_row_counts={hostile: 1}))

    run = store.run_of(hostile, hostile)
    assert run is not None and run.attempts is not None
    (attempt,) = run.attempts
    assert (run.dag_id, run.run_id, attempt.key.task_id) == (cleaned, cleaned, cleaned)
    assert run.facts.refused_row_counts == {cleaned: 1}
    assert attempt.facts.stdout == OutputExcerpt(head=cleaned, tail=cleaned)
    assert attempt.facts.progress is not None and attempt.facts.progress.metrics == {cleaned: 1.0}
    assert [each.run_id for each in store.runs(dag_ids=[hostile], adapter_name=hostile)] == [cleaned]


def test_text_is_bounded_and_the_reason_is_one_line(store: RunStore) -> None:
    long = "first line\r\n\tsecond\u2028third " + "x" * 100_000
    failure = dataclasses.replace(OUT_OF_MEMORY, failure_reason=long, remedy=long, failure_code=long)
    store.record_attempt(
        dataclasses.replace(TRY_1, task_id=long), RunState.FAILED, AttemptFacts(failure=failure, run_directory=long)
    )
    (run,) = store.runs()
    assert run.failure is not None
    assert len(run.failure.failure_reason) == 200
    assert run.failure.failure_reason.startswith("first line second third xxx")
    assert run.failure.failure_reason.endswith("…")
    assert (len(run.failure.remedy), len(run.failure.failure_code)) == (1000, 100)
    assert run.failed_task_id is not None and len(run.failed_task_id) == 250


def test_an_excerpt_that_is_too_long_keeps_its_outer_ends_and_counts_the_rest() -> None:
    excerpt = OutputExcerpt(
        head="a" * MAX_EXCERPT_CHARACTERS + "ü" * 10,
        tail="é" * 20 + "z" * MAX_EXCERPT_CHARACTERS,
        total_bytes=1_000_000,
        omitted_characters=5,
    )
    assert excerpt.head == "a" * MAX_EXCERPT_CHARACTERS
    assert excerpt.tail == "z" * MAX_EXCERPT_CHARACTERS
    assert (excerpt.total_bytes, excerpt.omitted_characters) == (1_000_000, 5 + 30)


def test_numbers_that_no_database_holds_are_unknown(store: RunStore) -> None:
    progress = Progress(
        progress_percentage=float("nan"),
        estimated_remaining_seconds=float("inf"),
        global_step=2**63,
        max_steps=2**63 - 1,
        metrics={"loss": float("nan"), "ok": 1.0},
    )
    store.record_attempt(TRY_1, RunState.RUNNING, AttemptFacts(progress=progress, exit_code=-(2**70)))
    store.record_run(TRY_1.dag_id, TRY_1.run_id, RunFacts(base_heldout_loss=float("-inf"), new_row_count=10**30))
    run = store.run_of(TRY_1.dag_id, TRY_1.run_id)
    assert run is not None and run.attempts is not None
    read = run.attempts[0].facts
    assert read.progress == Progress(max_steps=2**63 - 1, metrics={"loss": None, "ok": 1.0})  # type: ignore[dict-item]
    assert (read.exit_code, run.facts.base_heldout_loss, run.facts.new_row_count) == (None, None, None)


# Lists


@pytest.fixture
def seven_runs(store: RunStore) -> RunStore:
    """Runs 0 to 6, the newest first observed last; 2 and 3 in the same moment."""
    for number in range(7):
        minute = 2 if number == 3 else number
        store.record_run(
            "even" if number % 2 == 0 else "odd",
            str(number),
            RunFacts(adapter_name="a" if number < 4 else "b"),
            state=RunState.FAILED if number in (1, 5) else RunState.SUCCEEDED,
            observed_at=at(minute),
        )
    return store


def test_lists_are_newest_first_and_without_attempts(seven_runs: RunStore) -> None:
    runs = seven_runs.runs()
    assert {run.run_id for run in runs[3:5]} == {"2", "3"}
    assert [run.run_id for run in runs[:3] + runs[5:]] == ["6", "5", "4", "1", "0"]
    assert all(run.attempts is None for run in runs)


@pytest.mark.parametrize("page_size", [1, 2, 3, 7])
def test_pages_together_are_the_whole_list_also_when_runs_are_added_meanwhile(
    seven_runs: RunStore, page_size: int
) -> None:
    expected = [run.run_id for run in seven_runs.runs()]

    def pages() -> Iterator[str]:
        before = None
        while page := seven_runs.runs(page_size, before=before):
            yield from (run.run_id for run in page)
            before = page[-1].cursor
            seven_runs.record_run("even", f"added after {before}", observed_at=at(60))

    assert list(pages()) == expected


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"dag_ids": ["odd"]}, {"1", "3", "5"}),
        ({"state": RunState.FAILED}, {"1", "5"}),
        ({"adapter_name": "a"}, {"0", "1", "2", "3"}),
        ({"dag_ids": ["odd"], "state": RunState.FAILED, "adapter_name": "b"}, {"5"}),
        ({"dag_ids": ["' OR 1=1 --"]}, set()),
    ],
)
def test_lists_are_filtered(seven_runs: RunStore, filters: dict[str, Any], expected: set[str]) -> None:
    assert {run.run_id for run in seven_runs.runs(**filters)} == expected


@pytest.mark.parametrize("limit", [0, -1, 1001])
def test_an_impossible_limit_is_refused(limit: int) -> None:
    with pytest.raises(ValueError, match="expected 1 to 1000"):
        RunStore(create_engine("sqlite://")).runs(limit)


@pytest.mark.parametrize("cursor", ["", "~", "yesterday~abc", "2026-11-12T02:00:00~abc", "2026-11-12T02:00:00+00:00"])
def test_a_cursor_that_is_none_is_refused(cursor: str) -> None:
    with pytest.raises(ValueError, match="expected the cursor of a run"):
        RunStore(create_engine("sqlite://")).runs(before=cursor)


def test_lists_are_read_along_an_index_and_never_sorted(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'runs.db'}")
    store = RunStore.open(engine)
    store.record_run("dag", "run", RunFacts(adapter_name="a"))
    cursor = store.runs()[0].cursor
    statements: list[tuple[str, Any]] = []
    event.listen(engine, "before_cursor_execute", lambda c, cur, sql, values, *_: statements.append((sql, values)))
    for filters in ({}, {"dag_ids": ["dag"]}, {"state": RunState.FAILED}, {"adapter_name": "a"}):
        store.runs(before=cursor, **filters)  # type: ignore[arg-type]
    queries = [(sql, values) for sql, values in statements if sql.startswith("SELECT")]
    assert len(queries) == 4
    with engine.connect() as connection:
        for sql, values in queries:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", values).all()
            assert len(plan) == 1
            assert "USING INDEX ix_training_runs_newest" in plan[0][-1]
    engine.dispose()


# Faults


def test_a_locked_database_is_a_transient_failure_that_says_so(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    engine = create_engine(f"sqlite:///{path}")
    store = RunStore.open(engine, wait_seconds=0)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")

    with pytest.raises(RunStoreUnavailable, match="database is locked") as caught:
        store.record_run("dag", "run")

    holder.close()
    assert isinstance(caught.value, InfrastructureError)
    assert (caught.value.failure_code, caught.value.retryable) == ("run_store_unavailable", True)
    store.record_run("dag", "run")
    assert len(store.runs()) == 1
    engine.dispose()


def test_another_kind_of_database_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = create_engine("sqlite://")
    monkeypatch.setattr(engine.dialect, "name", "mysql")
    with pytest.raises(RunStoreDatabaseUnsupported, match="of the kind mysql; expected sqlite or postgresql"):
        RunStore(engine)


def test_the_other_postgresql_driver_works_as_well(postgresql_database_url: str) -> None:
    engine = create_engine(make_url(postgresql_database_url).set(drivername="postgresql+psycopg"))
    store = RunStore.open(engine)
    store.record_attempt(TRY_1, RunState.FAILED, AttemptFacts(failure=OUT_OF_MEMORY), observed_at=at(1))
    (run,) = store.runs(state=RunState.FAILED)
    assert (run.failure, run.updated_at) == (OUT_OF_MEMORY, at(1))
    engine.dispose()


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "runs.db").write_bytes(b"not a database, and rather long" * 100)
    engine = create_engine(f"sqlite:///{tmp_path / 'runs.db'}")
    with pytest.raises(RunStoreUnavailable, match=r"runs\.db.* is not a database"):
        RunStore.open(engine)
    engine.dispose()


def test_a_server_that_is_not_there_is_a_transient_failure_without_the_password(tmp_path: Path) -> None:
    engine = create_engine(f"postgresql+psycopg2://user:pa55word@/db?host={tmp_path}")
    with pytest.raises(RunStoreUnavailable, match="No such file") as caught:
        RunStore.open(engine)
    assert "pa55word" not in "".join(traceback.format_exception(caught.value)) + repr(caught.value.evidence)
    engine.dispose()


def test_a_database_error_shows_none_of_the_stored_text(store: RunStore, engine: Engine) -> None:
    def break_updates(_c: Any, _cursor: Any, sql: str, values: Any, *_: Any) -> tuple[str, Any]:
        return sql.replace("UPDATE training_runs", "UPDATE nowhere"), values

    event.listen(engine, "before_cursor_execute", break_updates, retval=True)
    private = RunFacts(triggered_by="somebody's text")
    with pytest.raises(RunStoreUnavailable, match="nowhere") as caught:
        store.record_run("dag", "run", private)
    assert "somebody" not in "".join(traceback.format_exception(caught.value)) + repr(caught.value.evidence)


def test_a_failed_record_leaves_nothing_behind(store: RunStore, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE training_attempts"))
    with pytest.raises(RunStoreUnavailable):
        store.record_attempt(TRY_1, RunState.RUNNING)
    assert store.runs() == []


# Many writers


def _heartbeat(store: RunStore, number: int) -> None:
    key = TRY_1 if number % 3 else TRY_2
    facts = AttemptFacts(
        started_at=at(key.try_number), heartbeat_at=at(number), progress=Progress(progress_percentage=number)
    )
    store.record_attempt(key, RunState.RUNNING, facts, observed_at=at(number))


def test_many_threads_write_the_same_run_and_nothing_is_lost(store: RunStore) -> None:
    barrier = threading.Barrier(6)

    def write(first: int) -> None:
        barrier.wait()
        for number in range(first, 60, 6):
            _heartbeat(store, number)

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(write, range(6)))

    run = store.run_of(TRY_1.dag_id, TRY_1.run_id)
    assert run is not None and run.attempts is not None
    assert [attempt.facts.heartbeat_at for attempt in run.attempts] == [at(59), at(57)]
    assert [a.facts.progress.progress_percentage for a in run.attempts if a.facts.progress] == [59, 57]
    assert (run.first_observed_at, run.updated_at, run.progress_percentage) == (at(0), at(59), 57)


def _write_in_process(url: str, first: int, barrier: Any) -> None:
    engine = create_engine(url)
    store = RunStore(engine)
    barrier.wait()
    for number in range(first, 40, 2):
        _heartbeat(store, number)
    engine.dispose()


def test_two_processes_write_the_same_run_and_nothing_is_lost(store: RunStore, database_url: str) -> None:
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    processes = [context.Process(target=_write_in_process, args=(database_url, n, barrier)) for n in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    run = store.run_of(TRY_1.dag_id, TRY_1.run_id)
    assert run is not None and run.attempts is not None
    assert [attempt.facts.heartbeat_at for attempt in run.attempts] == [at(38), at(39)]


def test_a_heartbeat_writes_only_what_is_new(store: RunStore, engine: Engine) -> None:
    store.record_attempt(TRY_1, RunState.RUNNING, AttemptFacts(stdout=OutputExcerpt(head="x")), observed_at=at(1))
    statements: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda _c, _cursor, sql, *_: statements.append(sql))
    store.record_attempt(TRY_1, RunState.RUNNING, AttemptFacts(heartbeat_at=at(2)), observed_at=at(2))
    (update,) = [sql for sql in statements if sql.startswith("UPDATE training_attempts")]
    assert "heartbeat_at" in update
    assert "stdout" not in update
    assert store.runs()[0].heartbeat_at == at(2)
