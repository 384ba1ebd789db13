"""Where a run is, from what is known of its attempts and what is said of it as a whole.

The rule, in the order it is applied:

1. Of each task (and map index) only the highest try counts. A record of an older try, however late, changes nothing.
2. What is said of the run as a whole counts unless something newer is known: an end counts unless a try began after it
   (a cleared run runs again); "queued" or "running" counts only when the newest task has ended before it was said.
3. Else the run is where its newest task is, the one of which a try began last: running while a try of it is queued or
   running, else failed if one failed, else cancelled if one was, else skipped if all were skipped. A task that
   succeeded does not end the run, since no task knows whether another follows: only 2 says that a run succeeded.

The result is a function of the rows alone, and these do not depend on the order of arrival (see ``merging``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from peft_retraining.run_store.merging import Row, RunWord, began_at, terminal_at, word_of
from peft_retraining.run_store.states import RunState

_FAILURE_COLUMNS = ("failure_code", "failure_reason", "failure_class", "retryable", "remedy")

ATTEMPT_COLUMNS_NEEDED = (
    *("task_id", "map_index", "try_number", "state", "fact_times", "first_observed_at"),
    *("queued_at", "started_at", "ended_at", "heartbeat_at"),
    *("phase", "progress_percentage", "estimated_remaining_seconds"),
    *_FAILURE_COLUMNS,
)
"""What ``settle_run`` reads of an attempt's row; the wide columns are not among them."""


@dataclass(frozen=True, slots=True)
class _Verdict:
    state: RunState
    ended_at: datetime | None = None
    word: RunWord | None = None


def settle_run(run: Row, attempts: Sequence[Row]) -> Row:
    """Bring the columns of a run that follow from its attempts up to date.

    Args:
        run: The run's row, with what is said of it as a whole.
        attempts: Rows of all its attempts, with at least ``ATTEMPT_COLUMNS_NEEDED``.

    Returns:
        The new row; ``run`` is unchanged.
    """
    current = _highest_tries(attempts)
    newest_task = _newest_task(current)
    verdict = _verdict(word_of(run), newest_task, current)
    beginnings = [row["started_at"] for row in (run, *attempts) if row.get("started_at")]
    heartbeats = [row["heartbeat_at"] for row in current if row["heartbeat_at"]]
    return {
        **run,
        "state": verdict.state,
        "started_at": min(beginnings, default=None),
        "ended_at": verdict.ended_at,
        "heartbeat_at": max(heartbeats, default=None),
        **_progress(verdict.state, current),
        **_failure(verdict, newest_task),
    }


def _highest_tries(attempts: Sequence[Row]) -> list[Row]:
    highest: dict[tuple[str, int], Row] = {}
    for attempt in sorted(attempts, key=lambda row: row["try_number"]):
        highest[attempt["task_id"], attempt["map_index"]] = attempt
    return list(highest.values())


def _newest_task(current: Sequence[Row]) -> list[Row]:
    """Return the current tries of the task of which a try began last; of equally new ones the last by name."""
    if not current:
        return []
    newest = max(current, key=lambda row: (began_at(row), row["task_id"]))
    return [row for row in current if row["task_id"] == newest["task_id"]]


def _verdict(word: RunWord | None, newest_task: Sequence[Row], current: Sequence[Row]) -> _Verdict:
    is_over = all(RunState(row["state"]).is_terminal for row in newest_task)
    if word is not None and word.state.is_terminal:
        if all(began_at(row) <= word.state_at for row in newest_task):
            return _Verdict(word.state, ended_at=word.state_at, word=word)
    elif word is not None and is_over and all(terminal_at(row) < word.state_at for row in newest_task):
        return _Verdict(word.state)
    if is_over and newest_task:
        return _verdict_when_over(newest_task)
    has_begun = any(RunState(row["state"]) is not RunState.QUEUED for row in current)
    return _Verdict(RunState.RUNNING if has_begun else RunState.QUEUED)


def _verdict_when_over(newest_task: Sequence[Row]) -> _Verdict:
    states = {RunState(row["state"]) for row in newest_task}
    for state in (RunState.FAILED, RunState.CANCELLED, RunState.SKIPPED):
        if state in states and (state is not RunState.SKIPPED or len(states) == 1):
            return _Verdict(state, ended_at=max(map(terminal_at, newest_task)))
    return _Verdict(RunState.RUNNING)


def _progress(state: RunState, current: Sequence[Row]) -> Row:
    telling = [row for row in current if row["phase"] is not None or row["progress_percentage"] is not None]
    if not telling:
        return {"phase": None, "progress_percentage": None, "estimated_remaining_seconds": None}
    newest = max(telling, key=lambda row: (began_at(row), row["task_id"], row["map_index"]))
    is_over = state.is_terminal or RunState(newest["state"]).is_terminal
    return {
        "phase": newest["phase"],
        "progress_percentage": newest["progress_percentage"],
        "estimated_remaining_seconds": None if is_over else newest["estimated_remaining_seconds"],
    }


def _failure(verdict: _Verdict, newest_task: Sequence[Row]) -> Row:
    """Return the cause: of the try that ended first in the run's state, else of the word on the run as a whole."""
    failure: dict[str, Any] = dict.fromkeys((*_FAILURE_COLUMNS, "failed_task_id"))
    if not verdict.state.is_terminal or verdict.state is RunState.SUCCEEDED:
        return failure
    guilty = [row for row in newest_task if RunState(row["state"]) is verdict.state]
    if verdict.word is not None and verdict.word.failure is not None:
        failure.update({column: getattr(verdict.word.failure, column) for column in _FAILURE_COLUMNS})
    if guilty:
        explained = [row for row in guilty if row["failure_code"] is not None]
        first = min(explained or guilty, key=lambda row: (terminal_at(row), row["map_index"]))
        if verdict.state is RunState.FAILED:
            failure["failed_task_id"] = first["task_id"]
        if explained:
            failure.update({column: first[column] for column in _FAILURE_COLUMNS})
    return failure
