"""The unusable rows that are planted among the good ones, each kind a fault that real tables have.

In comes a good row, out goes one that nothing can be learned from. ``unusable_rows.json`` says how many of each kind.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

from demo.sample_data.load import Cell

PLANTED_FILE = Path(__file__).with_name("unusable_rows.json")

Entries = Sequence[Mapping[str, Any]]


class Defect(StrEnum):
    """What makes a row unusable."""

    NULL_QUESTION = "null_question"
    EMPTY_QUESTION = "empty_question"
    BLANK_QUESTION = "blank_question"
    NUL_BYTE_IN_QUESTION = "nul_byte_in_question"
    INVALID_UTF8_IN_QUESTION = "invalid_utf8_in_question"
    NULL_SUGGESTIONS = "null_suggestions"
    MALFORMED_JSON = "malformed_json"
    EMPTY_LIST = "empty_list"
    NOT_A_LIST = "not_a_list"
    MISSING_CONFIDENCE = "missing_confidence"
    TEXT_CONFIDENCE = "text_confidence"
    NAN_CONFIDENCE = "nan_confidence"
    NEGATIVE_CONFIDENCE = "negative_confidence"
    CONFIDENCE_ABOVE_ONE = "confidence_above_one"
    EMPTY_DESCRIPTION = "empty_description"
    NUL_CHARACTER_IN_DESCRIPTION = "nul_character_in_description"
    INVALID_UTF8_IN_SUGGESTIONS = "invalid_utf8_in_suggestions"
    EXACT_DUPLICATE = "exact_duplicate"
    """An earlier row's question and suggestions once more; the recipe copies them, ``damage`` does not."""


def planted_counts() -> dict[Defect, int]:
    """Return how many rows of each kind are planted."""
    return {Defect(kind): count for kind, count in json.loads(PLANTED_FILE.read_text(encoding="utf-8")).items()}


def damage(defect: Defect, question: str, entries: Entries) -> tuple[Cell, Cell]:
    """Make a good row unusable.

    Args:
        defect: How; anything but ``EXACT_DUPLICATE``.
        question: The good question.
        entries: The good suggestions; all of them are damaged where the fault is in a suggestion.

    Returns:
        The cells ``original_query`` and ``suggestions``; bytes where the cell is not valid text.
    """
    if defect in _QUESTIONS:
        return _QUESTIONS[defect](question), json.dumps(entries)
    return question, _SUGGESTIONS[defect](entries)


def _each(**changes: Any) -> Callable[[Entries], Cell]:
    return lambda entries: json.dumps([{**entry, **changes} for entry in entries])


def _with_broken_character(text: str) -> bytes:
    middle = len(text) // 2
    return text[:middle].encode() + b"\xc3\x28\xff" + text[middle:].encode()


_QUESTIONS: Mapping[Defect, Callable[[str], Cell]] = {
    Defect.NULL_QUESTION: lambda question: None,
    Defect.EMPTY_QUESTION: lambda question: "",
    Defect.BLANK_QUESTION: lambda question: " \t\n ",
    Defect.NUL_BYTE_IN_QUESTION: lambda question: question.replace(" ", " \0", 1),
    Defect.INVALID_UTF8_IN_QUESTION: _with_broken_character,
}

_SUGGESTIONS: Mapping[Defect, Callable[[Entries], Cell]] = {
    Defect.NULL_SUGGESTIONS: lambda entries: None,
    Defect.MALFORMED_JSON: lambda entries: '{"a":',
    Defect.EMPTY_LIST: lambda entries: "[]",
    Defect.NOT_A_LIST: lambda entries: json.dumps(entries[0]),
    Defect.MISSING_CONFIDENCE: lambda entries: json.dumps([{"description": e["description"]} for e in entries]),
    Defect.TEXT_CONFIDENCE: _each(confidence="high"),
    Defect.NAN_CONFIDENCE: _each(confidence=float("nan")),
    Defect.NEGATIVE_CONFIDENCE: _each(confidence=-1),
    Defect.CONFIDENCE_ABOVE_ONE: _each(confidence=2),
    Defect.EMPTY_DESCRIPTION: _each(description=""),
    Defect.NUL_CHARACTER_IN_DESCRIPTION: lambda entries: json.dumps(
        [{**entry, "description": entry["description"].replace(" ", " \0", 1)} for entry in entries]
    ),
    Defect.INVALID_UTF8_IN_SUGGESTIONS: lambda entries: _with_broken_character(json.dumps(entries)),
}
