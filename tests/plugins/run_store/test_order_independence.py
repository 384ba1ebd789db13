"""Any order and any repetition of the same observations gives the same final rows."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from peft_retraining.errors import FailureClass
from peft_retraining.identity import AttemptKey
from peft_retraining.run_store.merging import Row, RunWord, merge_attempt, merge_run
from peft_retraining.run_store.records import AttemptFacts, Failure, OutputExcerpt, Progress, RunFacts, TrainingRun
from peft_retraining.run_store.run_state import settle_run
from peft_retraining.run_store.states import RunState
from peft_retraining.run_store.store import RunStore
from peft_retraining.run_store.tables import training_attempts, training_runs

START = datetime(2026, 11, 12, 2, 0, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    task_id: str
    map_index: int
    try_number: int
    state: RunState
    facts: AttemptFacts
    observed_at: datetime


@dataclass(frozen=True, slots=True)
class RunRecord:
    facts: RunFacts
    word: RunWord | None
    observed_at: datetime


Record = AttemptRecord | RunRecord

# Few values, so that ties and contradictions are common.
moments = st.integers(0, 6).map(lambda minute: START + timedelta(minutes=minute))
failures = st.builds(
    Failure,
    failure_code=st.sampled_from(["a", "b"]),
    failure_reason=st.sampled_from(["x\x00y", "line 1\nline 2", "r" * 300]),
    failure_class=st.sampled_from(FailureClass),
    retryable=st.booleans(),
)
maybe = st.none
attempt_facts = st.builds(
    AttemptFacts,
    queued_at=maybe() | moments,
    started_at=maybe() | moments,
    ended_at=maybe() | moments,
    heartbeat_at=maybe() | moments,
    phase=maybe() | st.sampled_from(["starting", "training", "\ud800"]),
    progress=maybe()
    | st.builds(
        Progress,
        progress_percentage=maybe() | st.sampled_from([0, 50, 50.5, float("nan")]),
        estimated_remaining_seconds=maybe() | st.sampled_from([0.0, 9.5]),
        global_step=maybe() | st.sampled_from([0, 2**70]),
        metrics=st.dictionaries(st.sampled_from(["loss", "memory_bytes"]), st.sampled_from([1, 0.1]), max_size=2),
    ),
    container_id=maybe() | st.sampled_from(["c1", "c2"]),
    exit_code=maybe() | st.sampled_from([0, 1, 137]),
    oom_killed=maybe() | st.booleans(),
    failure=maybe() | failures,
    stdout=maybe() | st.builds(OutputExcerpt, head=st.sampled_from(["", "h\x00"]), total_bytes=st.integers(0, 2)),
)
attempt_records = st.builds(
    AttemptRecord,
    task_id=st.sampled_from(["snapshot", "train"]),
    map_index=st.sampled_from([-1, 0]),
    try_number=st.integers(1, 3),
    state=st.sampled_from(RunState),
    facts=attempt_facts,
    observed_at=moments,
)
run_facts = st.builds(
    RunFacts,
    adapter_name=maybe() | st.sampled_from(["m", "n"]),
    queued_at=maybe() | moments,
    started_at=maybe() | moments,
    new_row_count=maybe() | st.integers(0, 1),
    refused_row_counts=maybe() | st.dictionaries(st.sampled_from(["empty", "too\x00long"]), st.integers(0, 1)),
    adapter_heldout_loss=maybe() | st.sampled_from([1, 1.5, float("inf")]),
    moved_latest=maybe() | st.booleans(),
)
words = st.builds(RunWord, state=st.sampled_from(RunState), state_at=moments, failure=maybe() | failures)
run_records = st.builds(RunRecord, facts=run_facts, word=maybe() | words, observed_at=moments)
records = st.lists(attempt_records | attempt_records | run_records, min_size=1, max_size=8)


def fold(sequence: list[Record]) -> Iterator[tuple[Row, dict[tuple[str, int, int], Row]]]:
    """Apply records one after the other, as the store does; yield the rows after each."""
    run: Row = {**dict.fromkeys(training_runs.columns.keys()), "fact_times": {}}
    run |= {"first_observed_at": sequence[0].observed_at, "updated_at": sequence[0].observed_at}
    attempts: dict[tuple[str, int, int], Row] = {}
    for record in sequence:
        if isinstance(record, AttemptRecord):
            key = (record.task_id, record.map_index, record.try_number)
            merged = merge_attempt(
                attempts.get(key), state=record.state, facts=record.facts, observed_at=record.observed_at
            )
            names = dict(zip(("task_id", "map_index", "try_number"), key, strict=True))
            attempts = {**attempts, key: {**dict.fromkeys(training_attempts.columns.keys()), **names, **merged}}
            run = merge_run(run, facts=RunFacts(), word=None, observed_at=record.observed_at)
        else:
            run = merge_run(run, facts=record.facts, word=record.word, observed_at=record.observed_at)
        run = settle_run(run, list(attempts.values()))
        yield run, attempts


def final_rows(sequence: list[Record]) -> tuple[Row, dict[tuple[str, int, int], Row]]:
    *_, last = fold(sequence)
    return last


@settings(deadline=None, max_examples=400)
@given(sequence=records, seed=st.randoms(use_true_random=False))
def test_any_order_and_repetition_gives_the_same_rows(sequence: list[Record], seed: random.Random) -> None:
    again = sequence + seed.choices(sequence, k=seed.randrange(len(sequence) + 1))
    seed.shuffle(again)
    assert final_rows(again) == final_rows(sequence)


@settings(deadline=None, max_examples=200)
@given(sequence=records)
def test_the_state_of_an_attempt_never_goes_back_in_any_order(sequence: list[Record]) -> None:
    held: dict[tuple[str, int, int], RunState] = {}
    for _, attempts in fold(sequence):
        for key, row in attempts.items():
            before = held.get(key, RunState.QUEUED)
            assert row["state"].is_terminal or not before.is_terminal
            assert not (before is RunState.RUNNING and row["state"] is RunState.QUEUED)
            held[key] = row["state"]


@settings(deadline=None, max_examples=200)
@given(sequence=records)
def test_delivered_in_the_order_observed_an_end_never_changes(sequence: list[Record]) -> None:
    ordered = [dataclasses.replace(record, observed_at=START + timedelta(hours=n)) for n, record in enumerate(sequence)]
    ends: dict[tuple[str, int, int], RunState] = {}
    for _, attempts in fold(ordered):
        for key, row in attempts.items():
            if row["state"].is_terminal:
                assert ends.setdefault(key, row["state"]) is row["state"]


@settings(deadline=None, max_examples=300)
@given(sequence=records)
def test_records_of_older_tries_change_nothing_of_where_the_run_is(sequence: list[Record]) -> None:
    attempts = [record for record in sequence if isinstance(record, AttemptRecord)]
    highest: dict[tuple[str, int], int] = {}
    for record in attempts:
        task = (record.task_id, record.map_index)
        highest[task] = max(record.try_number, highest.get(task, 0))
    without = [
        record
        for record in sequence
        if isinstance(record, RunRecord) or record.try_number == highest[record.task_id, record.map_index]
    ]
    shown = (
        *("state", "ended_at", "heartbeat_at", "phase", "progress_percentage", "estimated_remaining_seconds"),
        *("failure_code", "failure_reason", "failed_task_id"),
    )
    run, _ = final_rows(sequence)
    expected, _ = final_rows(without)
    assert {name: run[name] for name in shown} == {name: expected[name] for name in shown}


def _stored(store: RunStore, sequence: list[Record]) -> TrainingRun:
    run_id = uuid4().hex
    for record in sequence:
        if isinstance(record, AttemptRecord):
            key = AttemptKey(
                dag_id="dag",
                run_id=run_id,
                task_id=record.task_id,
                map_index=record.map_index,
                try_number=record.try_number,
            )
            store.record_attempt(key, record.state, record.facts, observed_at=record.observed_at)
        else:
            word = record.word
            said = {} if word is None else {"state": word.state, "state_at": word.state_at, "failure": word.failure}
            store.record_run("dag", run_id, record.facts, observed_at=record.observed_at, **said)
    run = store.run_of("dag", run_id)
    assert run is not None
    attempts = tuple(
        dataclasses.replace(attempt, key=dataclasses.replace(attempt.key, run_id="")) for attempt in run.attempts or ()
    )
    return dataclasses.replace(run, training_run_id="", run_id="", attempts=attempts)


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sequence=records, seed=st.randoms(use_true_random=False))
def test_the_databases_hold_the_same_rows_after_any_order(
    store: RunStore, sequence: list[Record], seed: random.Random
) -> None:
    again = sequence + seed.choices(sequence, k=seed.randrange(len(sequence) + 1))
    seed.shuffle(again)
    assert _stored(store, again) == _stored(store, sequence)


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sequence=records)
def test_the_databases_agree_with_the_rule(store: RunStore, sequence: list[Record]) -> None:
    stored = _stored(store, sequence)
    row, attempts = final_rows(sequence)
    assert (stored.state, stored.ended_at, stored.phase) == (row["state"], row["ended_at"], row["phase"])
    assert stored.failed_task_id == row["failed_task_id"]
    assert {
        (each.key.task_id, each.key.map_index, each.key.try_number): (each.state, each.facts.exit_code)
        for each in stored.attempts or ()
    } == {key: (each["state"], each["exit_code"]) for key, each in attempts.items()}
