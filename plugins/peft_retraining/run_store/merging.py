"""How observations become rows: a rule that any order and any repetition of the same observations satisfies alike.

Callbacks arrive late, twice and out of order, in other processes than the operator; a record that had to wait for the
database may come a day later. So nothing here depends on the order of arrival. Every observation carries the moment it
was made (``observed_at``), and a row keeps, for each fact that needs it, when the stored value was observed
(``fact_times``). Then:

- A fact stays by the rule its field states (``records.Stays``). Of two values of the same moment the larger stays where
  the newest is kept and the smaller where the first is: arbitrary, and the same everywhere.
- An attempt's state only goes forward: queued, running, terminal. Of two terminal states the one observed first stays,
  so nothing later ever changes a terminal state; only word of a still earlier end, delivered late, can correct it.

A row is a plain mapping from column to value; the store reads and writes it as it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from peft_retraining.run_store.records import AttemptFacts, Failure, OutputExcerpt, Progress, RunFacts, Stays
from peft_retraining.run_store.states import RunState

Row = dict[str, Any]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STATE = "state"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunWord:
    """What is said of a run as a whole, not by one of its tasks.

    Attributes:
        state: Where the run is.
        state_at: Since when: for an end, when the DAG run ended.
        failure: Why it did not succeed.
    """

    state: RunState
    state_at: datetime
    failure: Failure | None = None


def merge_attempt(held: Row | None, *, state: RunState, facts: AttemptFacts, observed_at: datetime) -> Row:
    """Merge one observation of an attempt into its row.

    Args:
        held: The row so far; ``None``: the attempt is new.
        state: The state observed.
        facts: The facts observed.
        observed_at: When, in UTC.

    Returns:
        The new row; ``held`` is unchanged.
    """
    row = _merge_facts(held, facts, observed_at)
    held_state = RunState(row.get("state", RunState.QUEUED))
    if not state.is_terminal:
        if not held_state.is_terminal and state is RunState.RUNNING:
            held_state = state
        row["state"] = held_state
        return row
    said = (_microseconds(observed_at), state)
    if held_state.is_terminal:
        said = min(said, (row["fact_times"][_STATE], held_state))
    row["fact_times"][_STATE], row["state"] = said
    return row


def merge_run(held: Row | None, *, facts: RunFacts, word: RunWord | None, observed_at: datetime) -> Row:
    """Merge one observation of a run into its row; the columns derived from its attempts are left alone.

    Args:
        held: The row so far; ``None``: the run is new.
        facts: The facts observed.
        word: What is said of its state, if anything; the newest word, by its ``state_at``, is kept.
        observed_at: When, in UTC.

    Returns:
        The new row; ``held`` is unchanged.
    """
    row = _merge_facts(held, facts, observed_at)
    if word is not None:
        held_word = row.get("run_word")
        said = {
            "state_at": _microseconds(word.state_at),
            "state": word.state,
            "failure": _columns("failure", word.failure) if word.failure else None,
        }
        row["run_word"] = (
            said if held_word is None else max(said, held_word, key=lambda it: (it["state_at"], _order(it)))
        )
    return row


def word_of(row: Row) -> RunWord | None:
    """Return what was said of the run as a whole, if anything."""
    said = row.get("run_word")
    if said is None:
        return None
    failure = Failure(**said["failure"]) if said["failure"] else None
    return RunWord(state=RunState(said["state"]), state_at=_moment(said["state_at"]), failure=failure)


def began_at(attempt: Row) -> datetime:
    """Return when an attempt began, as well as it is known."""
    moment: datetime = attempt["started_at"] or attempt["queued_at"] or attempt["first_observed_at"]
    return moment


def terminal_at(attempt: Row) -> datetime:
    """Return when an attempt in a terminal state ended, as well as it is known."""
    moment: datetime = attempt["ended_at"] or _moment(attempt["fact_times"][_STATE])
    return moment


def _merge_facts(held: Row | None, facts: AttemptFacts | RunFacts, observed_at: datetime) -> Row:
    row: Row = dict(held or {"fact_times": {}, "first_observed_at": observed_at, "updated_at": observed_at})
    times: dict[str, int] = dict(row["fact_times"])
    row["first_observed_at"] = min(row["first_observed_at"], observed_at)
    row["updated_at"] = max(row["updated_at"], observed_at)
    for field in dataclasses.fields(facts):
        name, value, stays = field.name, getattr(facts, field.name), field.metadata["stays"]
        if value is None:
            continue
        if stays is Stays.EARLIEST_TIME:
            row[name] = min(value, row.get(name) or value)
        elif stays is Stays.LATEST_TIME:
            row[name] = max(value, row.get(name) or value)
        else:
            columns = _columns(name, value)
            said = (_microseconds(observed_at), _order(columns))
            if name in times:
                stored = (times[name], _order({column: row[column] for column in columns}))
                if said <= stored if stays is Stays.NEWEST_SEEN else said >= stored:
                    continue
            row.update(columns)
            times[name] = said[0]
    row["fact_times"] = times
    return row


def _columns(name: str, value: Any) -> Row:
    """Spread a fact over the columns it is stored in."""
    if isinstance(value, Failure | Progress):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, OutputExcerpt):
        return {name: dataclasses.asdict(value)}
    return {name: value}


def _order(value: Any) -> tuple[Any, ...]:
    """Give all storable values one order, the same for a value as said and as read back (50 and 50.0)."""
    if value is None:
        return (0,)
    if isinstance(value, bool | int | float):
        return (1, value)
    if isinstance(value, datetime):
        return (2, value)
    if isinstance(value, Mapping):
        return (4, tuple(sorted((key, _order(item)) for key, item in value.items())))
    return (3, str(value))


def _microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _moment(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)
