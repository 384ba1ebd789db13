"""The run's state as a table: what was observed, in order of arrival, and where the run then is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from peft_retraining.errors import FailureClass
from peft_retraining.run_store.merging import Row, RunWord, merge_attempt, merge_run
from peft_retraining.run_store.records import AttemptFacts, Failure, Progress, RunFacts
from peft_retraining.run_store.run_state import settle_run
from peft_retraining.run_store.states import RunState
from peft_retraining.run_store.tables import training_attempts, training_runs

QUEUED, RUNNING, SUCCEEDED, FAILED, SKIPPED, CANCELLED = RunState


def at(minute: float) -> datetime:
    return datetime(2026, 11, 12, 2, 0, tzinfo=UTC) + timedelta(minutes=minute)


def failure(code: str) -> Failure:
    return Failure(failure_code=code, failure_reason=f"{code}!", failure_class=FailureClass.INFRA, retryable=True)


class Ledger:
    """The two tables in memory, with the same steps that the store takes."""

    def __init__(self) -> None:
        blank = dict.fromkeys(training_runs.columns.keys())
        self.run: Row = {**blank, **merge_run(None, facts=RunFacts(), word=None, observed_at=at(0))}
        self.attempts: dict[tuple[str, int, int], Row] = {}
        self.settle(None, 0)

    def task(
        self, minute: float, task_id: str, state: RunState, *, try_number: int = 1, map_index: int = -1, **facts: Any
    ) -> Ledger:
        key = (task_id, map_index, try_number)
        blank = dict.fromkeys(training_attempts.columns.keys())
        merged = merge_attempt(self.attempts.get(key), state=state, facts=AttemptFacts(**facts), observed_at=at(minute))
        names = {"task_id": task_id, "map_index": map_index, "try_number": try_number}
        self.attempts[key] = {**blank, **names, **merged}
        return self.settle(None, minute)

    def whole(
        self, minute: float, state: RunState, cause: Failure | None = None, state_at: float | None = None
    ) -> Ledger:
        word = RunWord(state=state, state_at=at(minute if state_at is None else state_at), failure=cause)
        return self.settle(word, minute)

    def settle(self, word: RunWord | None, minute: float) -> Ledger:
        merged = merge_run(self.run, facts=RunFacts(), word=word, observed_at=at(minute))
        self.run = settle_run(merged, list(self.attempts.values()))
        return self


def train_failed() -> Ledger:
    return (
        Ledger()
        .task(1, "snapshot", SUCCEEDED, started_at=at(0))
        .task(3, "train", RUNNING, started_at=at(2))
        .task(5, "train", FAILED, failure=failure("gpu_out_of_memory"))
    )


def train_runs_again() -> Ledger:
    return train_failed().task(7, "train", RUNNING, try_number=2, started_at=at(6))


def train_succeeded_at_try_2() -> Ledger:
    return Ledger().task(7, "train", SUCCEEDED, try_number=2, started_at=at(6)).whole(8, SUCCEEDED)


def mapped(*states: RunState) -> Ledger:
    ledger = Ledger()
    for index, state in enumerate(states):
        ledger.task(1 + index, "train", state, map_index=index)
    return ledger


CASES: dict[str, tuple[Ledger, RunState]] = {
    "nothing is known": (Ledger(), QUEUED),
    "the first task is queued": (Ledger().task(1, "wait", QUEUED), QUEUED),
    "the first task runs": (Ledger().task(1, "wait", RUNNING), RUNNING),
    "between two tasks": (Ledger().task(1, "wait", SUCCEEDED), RUNNING),
    "the second task is queued": (Ledger().task(1, "wait", SUCCEEDED).task(2, "train", QUEUED), RUNNING),
    "not enough data": (Ledger().task(1, "wait", SKIPPED), SKIPPED),
    "a task failed": (train_failed(), FAILED),
    "somebody stopped it": (Ledger().task(1, "train", CANCELLED), CANCELLED),
    "the run succeeded": (Ledger().task(1, "publish", SUCCEEDED).whole(2, SUCCEEDED), SUCCEEDED),
    "the end of the last task comes after that of the run": (
        Ledger().whole(2, SUCCEEDED).task(3, "publish", SUCCEEDED, started_at=at(1)),
        SUCCEEDED,
    ),
    # Cleared and retried runs
    "a later try takes a failed run back to running": (train_runs_again(), RUNNING),
    "a later try of an earlier task does so too": (
        train_failed().task(7, "snapshot", RUNNING, try_number=2, started_at=at(6)),
        RUNNING,
    ),
    "and once it succeeded, the failure of the next task is still history": (
        train_failed().task(7, "snapshot", SUCCEEDED, try_number=2, started_at=at(6)),
        RUNNING,
    ),
    "a later task does so too": (train_failed().task(7, "publish", RUNNING, started_at=at(6)), RUNNING),
    "the run is said to run again": (train_failed().whole(6, RUNNING), RUNNING),
    "a try began after the end of the run": (
        train_failed().whole(6, FAILED).task(8, "train", RUNNING, try_number=2, started_at=at(7)),
        RUNNING,
    ),
    "cleared, then succeeded": (
        train_runs_again().task(8, "train", SUCCEEDED, try_number=2).whole(9, SUCCEEDED),
        SUCCEEDED,
    ),
    # Late, repeated, reversed
    "a late callback of try 1 while try 2 runs": (train_runs_again().task(9, "train", FAILED), RUNNING),
    "a late callback of try 1, never heard of before": (
        Ledger().task(7, "train", RUNNING, try_number=2, started_at=at(6)).task(9, "train", FAILED),
        RUNNING,
    ),
    "a late callback of try 1 after the run succeeded": (
        train_succeeded_at_try_2().task(9, "train", FAILED),
        SUCCEEDED,
    ),
    "a late callback of the DAG run that was cleared since": (
        train_runs_again().whole(9, FAILED, state_at=5.5),
        RUNNING,
    ),
    "a late end of an earlier task": (
        Ledger().task(3, "train", RUNNING, started_at=at(2)).task(4, "snapshot", SUCCEEDED, started_at=at(0)),
        RUNNING,
    ),
    "a late heartbeat of an earlier task": (
        Ledger().task(5, "train", FAILED, started_at=at(2)).task(6, "snapshot", RUNNING, started_at=at(0)),
        FAILED,
    ),
    # What no task tells
    "the DAG run timed out and its task was lost": (
        Ledger().task(1, "train", RUNNING).whole(9, FAILED, failure("dagrun_timeout")),
        FAILED,
    ),
    "the run is said to run, and then a task failed": (train_failed().whole(6, RUNNING, state_at=1), FAILED),
    # Mapped tasks
    "one mapped try still runs": (mapped(FAILED, RUNNING), RUNNING),
    "one mapped try failed": (mapped(FAILED, SUCCEEDED), FAILED),
    "one mapped try was skipped": (mapped(SKIPPED, SUCCEEDED), RUNNING),
    "the mapped try that failed was repeated": (
        mapped(FAILED, SUCCEEDED).task(3, "train", SUCCEEDED, map_index=0, try_number=2),
        RUNNING,
    ),
}


@pytest.mark.parametrize(("ledger", "state"), CASES.values(), ids=CASES.keys())
def test_where_the_run_is(ledger: Ledger, state: RunState) -> None:
    assert ledger.run["state"] is state


def test_a_failed_run_tells_the_cause_and_the_task() -> None:
    run = train_failed().run
    assert (run["failure_code"], run["failure_reason"], run["failed_task_id"]) == (
        "gpu_out_of_memory", "gpu_out_of_memory!", "train",
    )  # fmt: skip
    assert (run["started_at"], run["ended_at"]) == (at(0), at(5))


def test_a_run_that_runs_again_has_no_failure_and_no_end() -> None:
    run = train_failed().task(7, "train", RUNNING, try_number=2, started_at=at(6)).run
    assert (run["failure_code"], run["failed_task_id"], run["ended_at"], run["retryable"]) == (None, None, None, None)


def test_the_exact_cause_of_the_task_is_preferred_to_the_general_one_of_the_run() -> None:
    run = train_failed().whole(6, FAILED, failure("task_failure")).run
    assert (run["failure_code"], run["failed_task_id"], run["ended_at"]) == ("gpu_out_of_memory", "train", at(6))


def test_the_cause_of_the_run_is_told_when_no_task_has_one() -> None:
    run = Ledger().task(1, "train", RUNNING).whole(9, FAILED, failure("dagrun_timeout")).run
    assert (run["failure_code"], run["failed_task_id"]) == ("dagrun_timeout", None)


def test_a_skipped_run_says_why() -> None:
    run = Ledger().task(1, "wait", SKIPPED, failure=failure("too_few_rows")).run
    assert (run["state"], run["failure_code"], run["failed_task_id"]) == (SKIPPED, "too_few_rows", None)


def test_of_several_failed_mapped_tries_the_first_cause_is_told() -> None:
    run = (
        Ledger()
        .task(5, "t", FAILED, map_index=0, failure=failure("second"))
        .task(4, "t", FAILED, map_index=1, failure=failure("first"))
        .task(3, "t", FAILED, map_index=2)
        .run
    )
    assert run["failure_code"] == "first"


def test_the_run_shows_the_progress_of_its_newest_task_that_tells_one() -> None:
    ledger = (
        Ledger()
        .task(1, "preflight", SUCCEEDED, started_at=at(0), phase="preflight")
        .task(3, "train", RUNNING, started_at=at(2), phase="training", heartbeat_at=at(3),
              progress=Progress(progress_percentage=40.0, estimated_remaining_seconds=60.0))
    )  # fmt: skip
    columns = ("phase", "progress_percentage", "estimated_remaining_seconds", "heartbeat_at")
    assert tuple(ledger.run[name] for name in columns) == ("training", 40.0, 60.0, at(3))

    ledger.task(4, "train", SUCCEEDED)
    assert tuple(ledger.run[name] for name in columns) == ("training", 40.0, None, at(3))


def test_the_progress_of_an_older_try_is_not_that_of_the_run() -> None:
    progress = Progress(progress_percentage=90.0)
    ledger = Ledger().task(1, "train", FAILED, phase="training", progress=progress, heartbeat_at=at(1))
    ledger.task(3, "train", RUNNING, try_number=2, phase="starting")
    assert (ledger.run["phase"], ledger.run["progress_percentage"], ledger.run["heartbeat_at"]) == (
        "starting",
        None,
        None,
    )
