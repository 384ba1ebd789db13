"""The table of failure signatures: which symptoms mean which cause (data, and the reader of that data).

The table is ``signatures.toml``; the first row that fits decides. A row fits when everything that it asks for holds.
"""

from __future__ import annotations

import functools
import re
import string
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib import resources
from typing import Any

from peft_retraining.errors import FailureClass, UserError
from peft_retraining.outcome.error_lines import ErrorLine
from training_contract.events import Phase

_WORDS = frozenset({"line", "last_line", "message", "exit_code", "signal", "phase", "result_problem"})
_NAME = re.compile(r"[a-z][a-z0-9_]{2,60}")


class ResultState(StrEnum):
    """What became of the result of a trainer that ended with exit code 0."""

    ACCEPTED = "accepted"
    MISSING = "missing"
    INVALID = "invalid"
    OF_ANOTHER_RUN = "of_another_run"
    NOTHING_TRAINED = "nothing_trained"
    NOT_FINITE = "not_finite"
    ADAPTER_DAMAGED = "adapter_damaged"


class SignaturesInvalid(UserError):
    """A table of signatures cannot be used; all problems are told at once."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__(
            "the table of failure signatures is not valid: " + "; ".join(self.problems),
            failure_code="signatures_invalid",
            remedy="Correct the rows that are named; the reference of failure signatures lists what a row may have.",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Symptoms:
    """What a signature is compared with.

    Attributes:
        exit_code: 0-255, or ``None``: nobody saw the end.
        signal: Number of the signal that ended the trainer.
        oom_killed: Whether the kernel killed for memory; ``None``: unknown.
        stop_requested: Whether the trainer was asked to stop.
        phase: What it was doing, as ``Phase`` spells it; empty: unknown.
        result: What became of the result; ``None``: not asked, the trainer failed.
        lines: Why it ended, most telling first.
    """

    exit_code: int | None
    signal: int | None
    oom_killed: bool | None
    stop_requested: bool
    phase: str
    result: ResultState | None
    lines: tuple[ErrorLine, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """One row of the table.

    Attributes:
        name: The ``failure_code``; several rows may share it.
        failure_class: Who has to act.
        retryable: Whether the same run may succeed when it is tried again.
        remedy: What to do about it.
        reason: How the cause is told, with words in braces out of the evidence; empty: by the line that fitted, else
            by the trainer's own message.
        exit_codes: Any of these; empty: not asked. Likewise below.
        signals: Any of these.
        oom_killed: Exactly this: ``True``, ``False``, or in the table ``"unknown"``, which is kept as the text.
        stop_requested: Exactly this.
        unseen: ``True``: nobody saw the end.
        phases: Any of these.
        results: Any of these.
        exception_types: An error line with one of these types, with or without their module.
        pattern: An error line, ``Type: message``, in which this is found; the same line as for the types.
    """

    name: str
    failure_class: FailureClass
    retryable: bool
    remedy: str
    reason: str = ""
    exit_codes: frozenset[int] = frozenset()
    signals: frozenset[int] = frozenset()
    oom_killed: bool | str | None = None
    stop_requested: bool | None = None
    unseen: bool = False
    phases: frozenset[str] = frozenset()
    results: frozenset[str] = frozenset()
    exception_types: frozenset[str] = frozenset()
    pattern: re.Pattern[str] | None = None

    def fits(self, symptoms: Symptoms) -> bool:
        """Whether everything that the row asks for holds."""
        return self._state_fits(symptoms) and (not self.asks_for_a_line or self.line_in(symptoms) is not None)

    @property
    def asks_for_a_line(self) -> bool:
        """Whether the row asks for an error line."""
        return bool(self.exception_types) or self.pattern is not None

    def line_in(self, symptoms: Symptoms) -> ErrorLine | None:
        """Return the first error line that the row asks for."""
        return next((line for line in symptoms.lines if self._line_fits(line)), None)

    def _state_fits(self, symptoms: Symptoms) -> bool:
        oom_killed = "unknown" if symptoms.oom_killed is None else symptoms.oom_killed
        return (
            (not self.exit_codes or symptoms.exit_code in self.exit_codes)
            and (not self.signals or symptoms.signal in self.signals)
            and (self.oom_killed is None or self.oom_killed == oom_killed)
            and (self.stop_requested is None or self.stop_requested == symptoms.stop_requested)
            and (not self.unseen or symptoms.exit_code is None)
            and (not self.phases or symptoms.phase in self.phases)
            and (not self.results or symptoms.result in self.results)
        )

    def _line_fits(self, line: ErrorLine) -> bool:
        if not self.asks_for_a_line:
            return False
        types = self.exception_types
        if types and line.exception_type not in types and line.type_name not in types:
            return False
        return self.pattern is None or self.pattern.search(line.text) is not None


@functools.cache
def built_in_signatures() -> tuple[Signature, ...]:
    """Return the table that comes with this package."""
    return read_signatures(resources.files(__package__).joinpath("signatures.toml").read_text(encoding="utf-8"))


def read_signatures(text: str) -> tuple[Signature, ...]:
    """Read a table of signatures.

    Args:
        text: TOML, an array of tables ``signature``.

    Raises:
        SignaturesInvalid: Not TOML, or rows that cannot be used; all of them.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SignaturesInvalid([f"it is not TOML ({error})"]) from error
    problems = [f"{key} is not known, only [[signature]]" for key in document if key != "signature"]
    rows = document.get("signature", [])
    signatures = []
    for number, row in enumerate(rows if isinstance(rows, list) else [rows], start=1):
        if not isinstance(row, Mapping):
            problems.append(f"row {number} is not a table")
            continue
        found: list[str] = []
        values = _row_values(row, found)
        problems += [f"row {number} ({row.get('name', 'without name')}): {problem}" for problem in found]
        if not found:
            signatures.append(Signature(**values))
    if problems:
        raise SignaturesInvalid(problems)
    return tuple(signatures)


def _row_values(row: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    match = row.get("match", {})
    readers = {**_ROW_READERS, "match": lambda value: value}
    values: dict[str, Any] = {}
    for place, given, known in (("", row, readers), ("match.", match, _MATCH_READERS)):
        if not isinstance(given, Mapping):
            problems.append("match must be a table")
            continue
        for key, value in given.items():
            try:
                values[key] = known[key](value)
            except KeyError:
                problems.append(f"{place}{key} is not known; known: {', '.join(sorted(known))}")
            except (ValueError, TypeError) as error:
                problems.append(f"{place}{key}: {error}")
    values.pop("match", None)
    problems += [f"{key} is missing" for key in ("name", "failure_class", "retryable", "remedy") if key not in row]
    if not match:
        problems.append("match is missing: a row that asks for nothing would fit everything")
    return values


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise TypeError(f"must be text, not {value!r}")
    return value


def _name(value: Any) -> str:
    if not _NAME.fullmatch(_text(value)):
        raise ValueError(f"{value!r} is not a failure code: lower case with underscores, 3 to 61 characters")
    return str(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"must be true or false, not {value!r}")
    return value


def _flag_or_unknown(value: Any) -> bool | str:
    return value if value == "unknown" else _flag(value)


def _numbers(value: Any) -> frozenset[int]:
    items = value if isinstance(value, list) else [value]
    if not items or not all(type(item) is int and 0 <= item <= 255 for item in items):  # noqa: PLR2004  # exit codes
        raise TypeError(f"must be whole numbers from 0 to 255, not {value!r}")
    return frozenset(items)


def _texts(value: Any) -> frozenset[str]:
    return frozenset(_text(item) for item in (value if isinstance(value, list) else [value]))


def _choices(kind: type[StrEnum]) -> Any:
    return lambda value: frozenset(kind(item) for item in _texts(value))


def _pattern(value: Any) -> re.Pattern[str]:
    try:
        return re.compile(_text(value))
    except re.error as error:
        raise ValueError(f"{value!r} is not a regular expression: {error}") from error


def _template(value: Any) -> str:
    unknown = {name for _, name, _, _ in string.Formatter().parse(_text(value)) if name is not None} - _WORDS
    if unknown:
        raise ValueError(f"{{{', '.join(sorted(unknown))}}} is not known; known: {', '.join(sorted(_WORDS))}")
    return str(value)


_ROW_READERS = {
    "name": _name,
    "failure_class": FailureClass,
    "retryable": _flag,
    "remedy": _text,
    "reason": _template,
}
_MATCH_READERS = {
    "exit_codes": _numbers,
    "signals": _numbers,
    "oom_killed": _flag_or_unknown,
    "stop_requested": _flag,
    "unseen": _flag,
    "phases": _choices(Phase),
    "results": _choices(ResultState),
    "exception_types": _texts,
    "pattern": _pattern,
}
