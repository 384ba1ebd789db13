"""Turns the shipped sample data into a SQLite database; needs the standard library only.

In comes ``ask_ai_queries.jsonl.gz`` (its format is in ``README.md``), out goes the table ``ask_ai_queries``. The file
says how many days before the last day a row was created, so that the data can lie right before any day.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

DATA_FILE = Path(__file__).with_name("ask_ai_queries.jsonl.gz")
DAY_COUNT = 120
DEFAULT_END = datetime(2026, 7, 1)
"""Where the data ends when nobody says otherwise: its rows are from 2026-03-03 to 2026-06-30."""

Cell = str | bytes | None
"""A cell of the table; bytes are stored as TEXT although they are not valid UTF-8."""

_CREATE_TABLE = """
CREATE TABLE ask_ai_queries (
    id INTEGER PRIMARY KEY,
    original_query TEXT,
    suggestions TEXT,
    created_at DATETIME NOT NULL
)
"""
_CREATE_INDEX = "CREATE INDEX ix_ask_ai_queries_created_at ON ask_ai_queries (created_at)"
# A bound blob that is cast keeps every byte: NUL, and what is not UTF-8.
_INSERT = "INSERT INTO ask_ai_queries VALUES (?, CAST(? AS TEXT), CAST(? AS TEXT), ?)"


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRow:
    """One row of the sample data.

    Attributes:
        days_before_last: Days between the row's day and the last day; 0 to 119.
        time: Time of the day, UTC, with microseconds.
        original_query: What the user asked.
        suggestions: What was suggested, as JSON text.
    """

    days_before_last: int
    time: time
    original_query: Cell
    suggestions: Cell

    def to_json(self) -> str:
        """Write the row as one line of the file."""
        return json.dumps(
            {
                "days_before_last": self.days_before_last,
                "time": self.time.isoformat(timespec="microseconds"),
                "original_query": _encoded(self.original_query),
                "suggestions": _encoded(self.suggestions),
            }
        )

    @classmethod
    def from_json(cls, line: str) -> SampleRow:
        """Read one line of the file."""
        fields = json.loads(line)
        return cls(
            days_before_last=fields["days_before_last"],
            time=time.fromisoformat(fields["time"]),
            original_query=_decoded(fields["original_query"]),
            suggestions=_decoded(fields["suggestions"]),
        )


def sample_rows() -> Iterator[SampleRow]:
    """Read the shipped rows, oldest first."""
    with gzip.open(DATA_FILE, "rt", encoding="ascii") as lines:
        yield from map(SampleRow.from_json, lines)


def load_sample_database(path: Path, *, end: datetime | None = None) -> int:
    """Create a SQLite database with the sample data; whoever looks sees all of it or nothing.

    Args:
        path: Where it goes; its directory exists. A database that is there is replaced; nobody may have it open.
        end: The last full day ends at the last midnight (UTC) that is not after this time; without a zone it is UTC.
            ``None``: ``DEFAULT_END``.

    Returns:
        The number of rows written.

    Raises:
        OSError: The file system refuses.
        sqlite3.Error: SQLite cannot write there.
    """
    temporary = path.with_name(f".tmp-{path.name}-{os.getpid()}")
    temporary.unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(temporary)) as connection:
            row_count = load_into(connection, end=end)
            connection.commit()
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return row_count


def load_into(connection: sqlite3.Connection, *, end: datetime | None = None) -> int:
    """Create the table ``ask_ai_queries`` with the sample data in an open database; the caller commits.

    Args:
        connection: A database without that table.
        end: As for ``load_sample_database``.

    Returns:
        The number of rows written.

    Raises:
        sqlite3.Error: The table is there already, or SQLite cannot write.
    """
    last_day = _last_full_day(end or DEFAULT_END)
    connection.execute(_CREATE_TABLE)
    connection.execute(_CREATE_INDEX)
    rows = ((number, *_values(row, last_day)) for number, row in enumerate(sample_rows(), start=1))
    return connection.executemany(_INSERT, rows).rowcount


def _last_full_day(end: datetime) -> date:
    utc = end.astimezone(UTC) if end.tzinfo else end
    return utc.date() - timedelta(days=1)


def _values(row: SampleRow, last_day: date) -> tuple[bytes | None, bytes | None, str]:
    created_at = datetime.combine(last_day - timedelta(days=row.days_before_last), row.time)
    return (
        _raw(row.original_query),
        _raw(row.suggestions),
        created_at.isoformat(sep=" ", timespec="microseconds"),
    )


def _raw(cell: Cell) -> bytes | None:
    return cell.encode() if isinstance(cell, str) else cell


def _encoded(cell: Cell) -> str | dict[str, str] | None:
    return {"base64": base64.b64encode(cell).decode("ascii")} if isinstance(cell, bytes) else cell


def _decoded(value: str | dict[str, str] | None) -> Cell:
    return base64.b64decode(value["base64"], validate=True) if isinstance(value, dict) else value
