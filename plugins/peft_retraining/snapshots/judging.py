"""Which rows can be learned from, and why the others cannot (pure)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from peft_retraining.data_watch.labelled_row import LabelledRow
from peft_retraining.settings import CompletionFormat

MAX_TEXT_CHARACTERS = 100_000
"""Longer texts are no question and no answer; they would only be read to be left out by the trainer."""


class RefusalReason(StrEnum):
    """Why a row is not used; the first reason that holds counts."""

    CREATED_AT_UNREADABLE = "created_at_unreadable"
    PROMPT_MISSING = "prompt_missing"
    COMPLETION_MISSING = "completion_missing"
    NOT_TEXT = "not_text"
    INVALID_UTF8 = "invalid_utf8"
    NUL_CHARACTER = "nul_character"
    TOO_LARGE = "too_large"
    SUGGESTIONS_NOT_JSON = "suggestions_not_json"
    SUGGESTIONS_NOT_A_LIST = "suggestions_not_a_list"
    SUGGESTIONS_EMPTY = "suggestions_empty"
    SUGGESTIONS_WITHOUT_CONFIDENCE = "suggestions_without_confidence"
    DUPLICATE = "duplicate"


class RowRefused(ValueError):
    """The row cannot be learned from."""

    def __init__(self, reason: RefusalReason) -> None:
        self.reason = reason
        super().__init__(reason.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """One prompt with the answer to learn."""

    source_id: str
    created_at: str
    prompt: str
    completion: str


def judge_row(row: LabelledRow, completion_format: CompletionFormat) -> Conversation:
    """Turn a row into a conversation, or refuse it.

    Args:
        row: As the database gave it.
        completion_format: How the answer is stored.

    Raises:
        RowRefused: With the first reason that holds.
    """
    if row.created_at is None:
        raise RowRefused(RefusalReason.CREATED_AT_UNREADABLE)
    prompt = _checked_text(row.prompt, missing=RefusalReason.PROMPT_MISSING)
    if completion_format is CompletionFormat.TEXT:
        completion = _checked_text(row.completion, missing=RefusalReason.COMPLETION_MISSING)
    else:
        completion = _checked_text(_best_suggestion(row.completion), missing=RefusalReason.COMPLETION_MISSING)
    return Conversation(source_id=row.source_id, created_at=row.created_at, prompt=prompt, completion=completion)


def _checked_text(value: Any, *, missing: RefusalReason) -> str:
    if value is None:
        raise RowRefused(missing)
    if not isinstance(value, str):
        raise RowRefused(RefusalReason.NOT_TEXT)
    if len(value) > MAX_TEXT_CHARACTERS:
        raise RowRefused(RefusalReason.TOO_LARGE)
    if "\x00" in value:
        raise RowRefused(RefusalReason.NUL_CHARACTER)
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise RowRefused(RefusalReason.INVALID_UTF8)
    text = value.strip()
    if not text:
        raise RowRefused(missing)
    return text


def _best_suggestion(stored: Any) -> Any:
    """Return the description of the suggestion with the highest confidence; of equals, the first."""
    if stored is None:
        raise RowRefused(RefusalReason.COMPLETION_MISSING)
    suggestions = stored
    if isinstance(stored, str):  # a JSON column arrives parsed, a text column does not
        text = _checked_text(stored, missing=RefusalReason.COMPLETION_MISSING)
        try:
            suggestions = json.loads(text)
        except (ValueError, RecursionError):
            raise RowRefused(RefusalReason.SUGGESTIONS_NOT_JSON) from None
    if not isinstance(suggestions, list):
        raise RowRefused(RefusalReason.SUGGESTIONS_NOT_A_LIST)
    if not suggestions:
        raise RowRefused(RefusalReason.SUGGESTIONS_EMPTY)
    rated = [
        suggestion
        for suggestion in suggestions
        if isinstance(suggestion, Mapping) and _is_confidence(suggestion.get("confidence"))
    ]
    if not rated:
        raise RowRefused(RefusalReason.SUGGESTIONS_WITHOUT_CONFIDENCE)
    return max(rated, key=lambda suggestion: float(suggestion["confidence"])).get("description")


def _is_confidence(value: Any) -> bool:
    # Comparing would let NaN through, and 1e400 reads as infinity: both are nobody's confidence.
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and 0 <= value <= 1
