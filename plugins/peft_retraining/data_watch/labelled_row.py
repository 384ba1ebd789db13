"""A row of labelled data as the database gave it (pure)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledRow:
    """A row as the database gave it, before anyone judged it.

    Attributes:
        source_id: Primary key as text, several columns joined by ``/``; empty for a table without one.
        created_at: UTC, ISO 8601 with microseconds; ``None`` when the database cannot read it as a time.
        prompt: As stored; text with lone surrogates where the bytes are not UTF-8.
        completion: Likewise, or an already parsed JSON value.
    """

    source_id: str
    created_at: str | None
    prompt: Any
    completion: Any
