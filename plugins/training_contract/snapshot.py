"""The frozen training rows: their columns, their digest, their manifest.

The rows are a Parquet file. The digest is over the rows' content, not over the file's bytes, so that another version of
the writer gives the same digest for the same rows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

ROW_COLUMNS = ("source_id", "created_at", "prompt", "completion", "split")
"""Columns of ``rows.parquet``, all text; ``created_at`` is UTC ISO 8601 with microseconds."""


class Split(StrEnum):
    """What a row is for."""

    TRAIN = "train"
    HELDOUT = "heldout"


class RowsDigest:
    """Accumulates the digest of rows, in their order in the file."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, row: Mapping[str, str]) -> None:
        """Add one row.

        Args:
            row: The values of ``ROW_COLUMNS``; other keys are ignored.
        """
        values = [row[column] for column in ROW_COLUMNS]
        self._digest.update(json.dumps(values, ensure_ascii=True, separators=(",", ":")).encode("ascii") + b"\n")

    def __str__(self) -> str:
        return f"sha256:{self._digest.hexdigest()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotManifest:
    """What was frozen, from where, and what was refused.

    Attributes:
        digest: ``sha256:...`` over the rows' content.
        train_row_count: Rows to train on.
        heldout_row_count: Rows to judge with; no prompt is in both.
        refused_row_counts: Unusable rows by reason.
        new_rows_since: Start (inclusive) of the window of new rows, UTC ISO 8601; ``None``: from the first row on.
        window_ends_at: End (exclusive) of both windows, UTC ISO 8601.
        oldest_row_at: ``created_at`` of the oldest row used.
        newest_row_at: ``created_at`` of the newest row used.
        frozen_at: When the rows were read.
        query: What was asked, so that a rerun can tell whether it asks the same.
    """

    digest: str
    train_row_count: int
    heldout_row_count: int
    window_ends_at: str
    frozen_at: str
    new_rows_since: str | None = None
    oldest_row_at: str | None = None
    newest_row_at: str | None = None
    refused_row_counts: Mapping[str, int] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)

    @property
    def row_count(self) -> int:
        """Rows in the file."""
        return self.train_row_count + self.heldout_row_count

    @property
    def refused_row_count(self) -> int:
        """Rows that were read and cannot be used."""
        return sum(self.refused_row_counts.values())
