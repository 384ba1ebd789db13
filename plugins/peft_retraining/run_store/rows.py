"""Rows as read from the tables become the values that callers get."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from peft_retraining.identity import AttemptKey
from peft_retraining.run_store.merging import Row
from peft_retraining.run_store.records import (
    AttemptFacts,
    Failure,
    OutputExcerpt,
    Progress,
    RunFacts,
    TrainingAttempt,
    TrainingRun,
)
from peft_retraining.run_store.states import RunState


def _names(kind: type) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]


_SIMPLE_RUN_FIELDS = set(_names(TrainingRun)) - {"state", "facts", "failure", "attempts"}
_SIMPLE_ATTEMPT_FACTS = set(_names(AttemptFacts)) - {"progress", "failure", "stdout", "stderr"}


def training_run(row: Row, attempts: Sequence[Row] | None = None) -> TrainingRun:
    """Turn the row of a run into a value.

    Args:
        row: All its columns.
        attempts: Rows of its attempts, in the order wanted; ``None``: not asked for.
    """
    return TrainingRun(
        **{name: row[name] for name in _SIMPLE_RUN_FIELDS},
        state=RunState(row["state"]),
        facts=RunFacts(**{name: row[name] for name in _names(RunFacts)}),
        failure=_failure(row),
        attempts=None if attempts is None else tuple(_training_attempt(row, attempt) for attempt in attempts),
    )


def _training_attempt(run: Row, row: Row) -> TrainingAttempt:
    state = RunState(row["state"])
    facts: Row = {name: row[name] for name in _SIMPLE_ATTEMPT_FACTS}
    if "progress" in row["fact_times"]:
        facts["progress"] = Progress(**{name: row[name] for name in _names(Progress)})
    if state.is_terminal and state is not RunState.SUCCEEDED:
        facts["failure"] = _failure(row)
    for stream in ("stdout", "stderr"):
        facts[stream] = OutputExcerpt(**row[stream]) if row[stream] else None
    return TrainingAttempt(
        key=AttemptKey(
            dag_id=run["dag_id"],
            run_id=run["run_id"],
            task_id=row["task_id"],
            map_index=row["map_index"],
            try_number=row["try_number"],
        ),
        state=state,
        updated_at=row["updated_at"],
        facts=AttemptFacts(**facts),
    )


def _failure(row: Row) -> Failure | None:
    if row["failure_code"] is None:
        return None
    return Failure(**{name: row[name] for name in _names(Failure)})
