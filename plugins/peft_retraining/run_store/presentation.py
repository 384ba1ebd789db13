"""Runs as people and programs read them: JSON-able dictionaries and plain text for a terminal.

Times are UTC ISO 8601; what is unknown is ``None`` in a dictionary and ``-`` in text, never zero.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

from peft_retraining.identity import AttemptKey
from peft_retraining.run_store.records import (
    Failure,
    OutputExcerpt,
    Progress,
    RunFacts,
    TrainingAttempt,
    TrainingRun,
)

_UNKNOWN = "-"
_NOT_FOR_A_TERMINAL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_NOT_FOR_A_LINE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_LAID_FLAT = {
    name: [field.name for field in dataclasses.fields(kind)]
    for name, kind in (("key", AttemptKey), ("facts", RunFacts), ("progress", Progress), ("failure", Failure))
}


def run_as_dict(run: TrainingRun) -> dict[str, Any]:
    """Return a run as JSON can hold it; facts and failure are laid flat, ``attempts`` is there if the run has them."""
    flat = _flat(run, leave_out=("attempts",))
    flat["cursor"] = run.cursor
    if run.attempts is not None:
        flat["attempts"] = [attempt_as_dict(attempt) for attempt in run.attempts]
    return flat


def attempt_as_dict(attempt: TrainingAttempt) -> dict[str, Any]:
    """Return an attempt as JSON can hold it; facts, progress and failure are laid flat."""
    return {"training_run_id": attempt.key.training_run_id, **_flat(attempt)}


def runs_as_table(runs: Sequence[TrainingRun]) -> str:
    """Return a list of runs as a table of plain text, in the order given, one line a run."""
    if not runs:
        return "No training runs are recorded."
    header = ("RUN", "DAG", "DAG RUN", "STATE", "PROGRESS", "HELD-OUT LOSS", "FIRST SEEN", "WHY")
    rows = [
        (
            run.training_run_id,
            run.dag_id,
            run.run_id,
            run.state.value,
            _progress(run.phase, run.progress_percentage),
            _losses(run),
            run.first_observed_at.strftime("%Y-%m-%d %H:%MZ"),
            _why(run.failure),
        )
        for run in runs
    ]
    return _aligned([header, *rows])


def run_as_text(run: TrainingRun) -> str:
    """Return all that is known of a run, with its attempts and what the trainer printed, as plain text."""
    lines = [f"{name}: {_shown(value)}" for name, value in _flat(run, leave_out=("attempts",)).items()]
    for attempt in run.attempts or ():
        key, facts = attempt.key, attempt.facts
        mapped = f"[{key.map_index}]" if key.map_index >= 0 else ""
        lines += ["", f"task {_shown(key.task_id)}{mapped}, try {key.try_number}: {attempt.state}"]
        told = _flat(facts, leave_out=("stdout", "stderr"))
        lines += [f"  {name}: {_shown(value)}" for name, value in told.items() if value not in (None, {})]
        for name, excerpt in (("stdout", facts.stdout), ("stderr", facts.stderr)):
            if excerpt is not None:
                lines += _excerpt_lines(name, excerpt)
    return "\n".join(lines)


def _flat(value: Any, leave_out: Sequence[str] = ()) -> dict[str, Any]:
    """Lay a value and its facts, key, progress and failure flat; the names of their fields are all different."""
    flat: dict[str, Any] = {}
    for field in dataclasses.fields(value):
        item = getattr(value, field.name)
        if field.name in leave_out:
            continue
        if field.name in _LAID_FLAT:
            flat.update(dict.fromkeys(_LAID_FLAT[field.name]) if item is None else _flat(item))
        else:
            flat[field.name] = _plain(item)
    return flat


def _plain(value: Any) -> Any:
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, OutputExcerpt):
        return dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return dict(value)
    return value


def _progress(phase: str | None, percentage: float | None) -> str:
    told = [phase or "", "" if percentage is None else f"{percentage:.0f} %"]
    return " ".join(part for part in told if part) or _UNKNOWN


def _losses(run: TrainingRun) -> str:
    losses = (run.facts.base_heldout_loss, run.facts.adapter_heldout_loss)
    if losses == (None, None):
        return _UNKNOWN
    return " to ".join(_UNKNOWN if loss is None else f"{loss:.4f}" for loss in losses)


def _why(failure: Failure | None) -> str:
    return _UNKNOWN if failure is None else f"{failure.failure_code}: {failure.failure_reason}"


def _excerpt_lines(name: str, excerpt: OutputExcerpt) -> Iterator[str]:
    yield f"  {name} ({excerpt.total_bytes} bytes):"
    for part, text in (("head", excerpt.head), ("tail", excerpt.tail)):
        if part == "tail" and excerpt.omitted_characters:
            yield f"    [{excerpt.omitted_characters} characters omitted]"
        for line in text.split("\n") if text else ():
            yield "    | " + _escaped(_NOT_FOR_A_TERMINAL, line)


def _shown(value: Any) -> str:
    return _UNKNOWN if value is None else _escaped(_NOT_FOR_A_LINE, str(value))


def _escaped(pattern: re.Pattern[str], text: str) -> str:
    """Show what a terminal would obey (colours, cursor, direction of writing) instead of sending it there."""
    return pattern.sub(lambda match: match.group().encode("unicode_escape").decode("ascii"), text)


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    shown = [[_shown(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in shown) for column in range(len(shown[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in shown
    )
