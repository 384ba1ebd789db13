"""Values as every database can hold them: bounded text without NUL, finite numbers, times in UTC."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

MAX_TEXT_CHARACTERS = 1000
"""Text whose field states no other limit is cut here."""

_MAX_KEY_CHARACTERS = 100
_MAX_MAPPING_ENTRIES = 100
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def clean_text(text: str, max_characters: int = MAX_TEXT_CHARACTERS) -> str:
    """Replace what PostgreSQL or UTF-8 refuse (NUL, lone surrogates), and cut; an ellipsis shows the cut."""
    if len(text) > max_characters:
        text = text[: max_characters - 1] + _ELLIPSIS
    return _UNSTORABLE.sub(_REPLACEMENT, text)


def one_line(text: str, max_characters: int) -> str:
    """Clean text and put it on one line: every run of white space, line ends included, becomes one blank."""
    return clean_text(" ".join(text.split()), max_characters)


def as_utc(moment: datetime) -> datetime:
    """Return the same moment in UTC.

    Raises:
        ValueError: The time is naive: nobody can say which moment it means.
    """
    if moment.tzinfo is None:
        raise ValueError(f"the time {moment.isoformat()} has no zone; expected one with a zone, for example UTC")
    return moment.astimezone(UTC)


def clean_fields(value: Any) -> None:
    """Make every field of a frozen dataclass storable, in its ``__post_init__``.

    A number that no database holds (NaN, infinite, beyond 64 bits) becomes ``None``: unknown. A text field may state
    its limit as ``max_characters`` in its metadata.

    Raises:
        ValueError: A time is naive.
    """
    for field in dataclasses.fields(value):
        limit = field.metadata.get("max_characters", MAX_TEXT_CHARACTERS)
        object.__setattr__(value, field.name, _clean(getattr(value, field.name), limit))


def _clean(value: Any, max_characters: int) -> Any:
    cleaned = value
    if isinstance(value, bool | StrEnum):
        pass
    elif isinstance(value, str):
        cleaned = clean_text(value, max_characters)
    elif isinstance(value, int):
        cleaned = int(value) if -(2**63) <= value < 2**63 else None
    elif isinstance(value, float):
        cleaned = value if math.isfinite(value) else None
    elif isinstance(value, datetime):
        cleaned = as_utc(value)
    elif isinstance(value, Mapping):
        entries = list(value.items())[:_MAX_MAPPING_ENTRIES]
        cleaned = {clean_text(str(key), _MAX_KEY_CHARACTERS): _clean(item, max_characters) for key, item in entries}
    return cleaned
