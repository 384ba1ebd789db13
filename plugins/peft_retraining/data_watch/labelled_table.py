"""The table of labelled conversations: what it must look like, and the two queries that are asked of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.elements import ColumnElement

from peft_retraining.data_watch.labelled_row import LabelledRow
from peft_retraining.data_watch.windows import DataWindow
from peft_retraining.database_address import shown_address
from peft_retraining.errors import InfrastructureError, UserError
from peft_retraining.settings import Settings

_ROWS_A_FETCH = 500
_SQLITE_BUSY_TIMEOUT_MILLISECONDS = 30_000
_STATEMENT_LIMIT_MILLISECONDS = 540_000
"""Below the time after which the trigger gives up a look."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledTable:
    """Where the labelled conversations are.

    Attributes:
        table: Name, or ``schema.name``.
        prompt_column: What the user asked.
        completion_column: What the answer is made from.
        created_at_column: When the row was created.
    """

    table: str
    prompt_column: str
    completion_column: str
    created_at_column: str

    @classmethod
    def of(cls, settings: Settings) -> LabelledTable:
        """Take the table out of the settings."""
        return cls(
            table=settings.labelled_table,
            prompt_column=settings.prompt_column,
            completion_column=settings.completion_column,
            created_at_column=settings.created_at_column,
        )


class LabelledRows:
    """Counts and reads the rows of a labelled table."""

    def __init__(self, engine: Engine, table: LabelledTable) -> None:
        """Prepare; nothing is asked yet.

        Args:
            engine: Of the labelled database; never written to.
            table: Where the rows are.
        """
        self._engine = engine
        self._table = table
        if engine.dialect.name == "sqlite" and not sa.event.contains(engine, "connect", _prepare_sqlite):
            sa.event.listen(engine, "connect", _prepare_sqlite)

    def count_new(self, window: DataWindow) -> int:
        """Count the labelled rows that are new in a window.

        A row counts when prompt and completion are there; whether they can be used is for the snapshot to say.

        Raises:
            UserError: Table or column is missing, or the time column has no time type.
            InfrastructureError: The database file is not there (yet), or the database does not answer.
        """
        with self._connected() as connection:
            source = self._inspect(connection)
            conditions = [source.prompt.is_not(None), source.completion.is_not(None), *source.within(window)]
            return int(connection.execute(sa.select(sa.func.count()).where(*conditions)).scalar_one())

    def newest_first(self, ends_at: datetime) -> Iterator[LabelledRow]:
        """Yield the rows created before a time, newest first, in bounded memory.

        Rows whose time cannot be read come first, with ``created_at`` ``None``: they belong to no window, and whoever
        reads has to know how many there are.

        Raises:
            UserError: Table or column is missing, or the time column has no time type.
            InfrastructureError: The database file is not there (yet), or the database does not answer.
        """
        with self._connected() as connection:
            source = self._inspect(connection)
            key = [sa.cast(column, sa.Text) for column in source.key]
            columns = [*key, source.created_at_text, source.prompt, source.completion]
            newest = [source.created_at.desc(), *(column.desc() for column in source.key)]
            for condition, order in (
                (source.created_at.is_(None), newest[1:]),
                (source.created_at < source.bound(ends_at), newest),
            ):
                query = sa.select(*columns).where(condition).order_by(*order)
                result = connection.execution_options(yield_per=_ROWS_A_FETCH).execute(query)
                for row in result:
                    *ids, created_at, prompt, completion = row
                    yield LabelledRow(
                        source_id="/".join(str(part) for part in ids),
                        created_at=_as_iso(created_at),
                        prompt=prompt,
                        completion=completion,
                    )

    @contextlib.contextmanager
    def _connected(self) -> Iterator[Connection]:
        url = self._engine.url
        where = shown_address(url)
        if self._engine.dialect.name == "sqlite" and url.database and not Path(_file_of(url.database)).is_file():
            # SQLite would create an empty file and then miss the table: the wrong cause, and a stray file.
            raise InfrastructureError(
                f"the database file {_file_of(url.database)} does not exist",
                failure_code="labelled_data_missing",
                remedy="Correct the path in the Airflow connection of the labelled data, or create the database.",
            )
        try:
            with self._engine.connect() as connection:
                if connection.dialect.name == "postgresql":
                    # Who gave up waiting cannot end a query from outside.
                    connection.execute(sa.text(f"SET statement_timeout = {_STATEMENT_LIMIT_MILLISECONDS}"))
                yield connection
        except DBAPIError as error:
            cause = " ".join(str(error.orig).split())[:300]
            if "file is not a database" in cause or "malformed" in cause:
                raise UserError(
                    f"{where} is not a database that can be read: {cause}",
                    failure_code="labelled_data_unreadable",
                    remedy="Restore the file, or correct the path in the Airflow connection of the labelled data.",
                ) from error
            if _is_forbidden(error):
                raise UserError(
                    f"the labelled database {where} refuses: {cause}",
                    failure_code="labelled_data_forbidden",
                    remedy="Correct user and password in the connection of the labelled data, or grant SELECT.",
                ) from error
            raise InfrastructureError(
                f"the labelled database {where} does not answer: {cause}",
                failure_code="labelled_data_unavailable",
                remedy="Check that the database runs, is reachable from the worker and is not locked.",
            ) from error

    def _inspect(self, connection: Connection) -> _Source:
        schema, _, name = self._table.table.rpartition(".")
        inspector = sa.inspect(connection)
        try:
            columns = {column["name"]: column["type"] for column in inspector.get_columns(name, schema or None)}
        except sa.exc.NoSuchTableError:
            columns = {}
        if not columns:
            present = ", ".join(sorted(inspector.get_table_names(schema or None))[:20]) or "none"
            raise UserError(
                f"the table {self._table.table!r} does not exist; tables there: {present}",
                failure_code="labelled_table_missing",
                remedy="Correct the setting labelled_table, or the Airflow connection of the labelled data.",
            )
        wanted = {
            "prompt_column": self._table.prompt_column,
            "completion_column": self._table.completion_column,
            "created_at_column": self._table.created_at_column,
        }
        missing = [f"{column!r} (setting {setting})" for setting, column in wanted.items() if column not in columns]
        if missing:
            raise UserError(
                f"the table {self._table.table!r} has no column {', '.join(missing)}; it has {', '.join(columns)}",
                failure_code="labelled_column_missing",
                remedy="Correct the settings of the columns, or add the column to the table.",
            )
        key = [str(column) for column in inspector.get_pk_constraint(name, schema or None)["constrained_columns"]]
        return _Source(
            connection, sa.table(name, *map(sa.column, columns), schema=schema or None), self._table, columns, key
        )


class _Source:
    """The table's columns as expressions whose values compare the same way on every database."""

    def __init__(
        self, connection: Connection, table: sa.TableClause, names: LabelledTable, types: dict[str, Any], key: list[str]
    ) -> None:
        self._sqlite = connection.dialect.name == "sqlite"
        self.prompt: ColumnElement[Any] = table.c[names.prompt_column]
        self.completion: ColumnElement[Any] = table.c[names.completion_column]
        self.key: list[ColumnElement[Any]] = [table.c[column] for column in key]
        if self._sqlite and not key:
            self.key = [sa.literal_column("rowid")]
        self.created_at: ColumnElement[Any]
        self.created_at_text: ColumnElement[Any]
        stored: ColumnElement[Any] = table.c[names.created_at_column]
        kind = types[names.created_at_column]
        if self._sqlite:
            # SQLite keeps times as text in several spellings ("T" or blank, with or without a zone). Its own function
            # brings them to one spelling in UTC, which sorts as time; comparing the raw text would be wrong silently.
            self.created_at = self.created_at_text = sa.func.strftime("%Y-%m-%dT%H:%M:%f", stored)
        elif isinstance(kind, sa.DateTime):
            self.created_at = self.created_at_text = sa.type_coerce(stored, sa.DateTime(timezone=kind.timezone))
        else:
            raise UserError(
                f"the column {names.created_at_column!r} has the type {kind}; expected a timestamp",
                failure_code="labelled_column_type",
                remedy="Name a timestamp column in the setting created_at_column, or change the column's type.",
            )
        self._with_zone = bool(getattr(kind, "timezone", False))

    def bound(self, moment: datetime) -> Any:
        """Spell a time as the column's values are spelled."""
        utc = moment.astimezone(UTC)
        if self._sqlite:
            return utc.strftime("%Y-%m-%dT%H:%M:%S.") + f"{utc.microsecond // 1000:03d}"
        return utc if self._with_zone else utc.replace(tzinfo=None)

    def within(self, window: DataWindow) -> list[ColumnElement[bool]]:
        """Say that a row's time lies in a window."""
        conditions = [self.created_at < self.bound(window.ends_at)]
        if window.new_rows_since is not None:
            conditions.append(self.created_at >= self.bound(window.new_rows_since))
        return conditions


def _is_forbidden(error: DBAPIError) -> bool:
    """Return whether the database answered and said no: SQLSTATE classes 28 (login) and 42501 (privilege)."""
    state = str(getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None) or "")
    # A refused login has no SQLSTATE in libpq's drivers.
    return state.startswith("28") or state == "42501" or "authentication failed" in str(error.orig)


def _file_of(database: str) -> str:
    return database.removeprefix("file:").split("?", 1)[0]


def _as_iso(value: Any) -> str | None:
    if value is None:
        return None
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return moment.isoformat(timespec="microseconds")


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    """Let bytes that are not UTF-8 through, marked, instead of failing the whole query on one bad row."""
    connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
    connection.execute(f"PRAGMA busy_timeout = {_SQLITE_BUSY_TIMEOUT_MILLISECONDS}")
    connection.execute("PRAGMA query_only = ON")
