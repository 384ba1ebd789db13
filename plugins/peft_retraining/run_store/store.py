"""The store itself: observations in, runs out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import datetime

from sqlalchemy import Connection, Engine, Table, literal, select, text, tuple_
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from peft_retraining.identity import AttemptKey, training_run_id
from peft_retraining.run_store.merging import Row, RunWord, merge_attempt, merge_run
from peft_retraining.run_store.records import (
    MAX_ID_CHARACTERS,
    AttemptFacts,
    Failure,
    RunFacts,
    TrainingRun,
)
from peft_retraining.run_store.rows import training_run
from peft_retraining.run_store.run_state import ATTEMPT_COLUMNS_NEEDED, settle_run
from peft_retraining.run_store.schema import SchemaStatus, check_schema, schema_status, upgrade_schema
from peft_retraining.run_store.sqlite_file import prepare_sqlite_file
from peft_retraining.run_store.states import RunState
from peft_retraining.run_store.store_errors import RunStoreDatabaseUnsupported, RunStoreUnavailable
from peft_retraining.run_store.stored_values import as_utc, clean_text, one_line
from peft_retraining.run_store.tables import UtcDateTime, training_attempts, training_runs
from training_contract.events import utc_now

MAX_RUNS_PER_PAGE = 1000

DEFAULT_WAIT_SECONDS = 10
"""For a lock or an answer: short, because trainings and callbacks wait with us."""

_UPGRADE_WAIT_SECONDS = 120
_MAX_PROBLEM_CHARACTERS = 300
_NO_RUN_FACTS = RunFacts()
_NO_ATTEMPT_FACTS = AttemptFacts()


class CursorInvalid(ValueError):
    """What was given as the place in a list is none."""


class RunStore:
    """The record of every run.

    Each call is one short transaction. Writers of the same run wait for each other, so any number of processes may
    write at once; ``merging`` says how their observations merge. SQLite keeps its rollback journal rather than a
    write-ahead log: transactions are short and rare, and one file without companions can be read by those who may not
    write beside it.
    """

    def __init__(
        self, engine: Engine, *, now: Callable[[], datetime] = utc_now, wait_seconds: int = DEFAULT_WAIT_SECONDS
    ) -> None:
        """Take an engine; nothing is asked of the database yet.

        Args:
            engine: Of a SQLite or PostgreSQL database; its owner disposes of it.
            now: Clock, for tests.
            wait_seconds: How long a call waits for a lock or an answer before the store counts as unavailable.

        Raises:
            RunStoreDatabaseUnsupported: It is another kind of database.
        """
        if engine.dialect.name not in ("sqlite", "postgresql"):
            raise RunStoreDatabaseUnsupported(kind=engine.dialect.name)
        self._engine = engine
        self._now = now
        self._wait_seconds = wait_seconds

    @classmethod
    def open(
        cls, engine: Engine, *, now: Callable[[], datetime] = utc_now, wait_seconds: int = DEFAULT_WAIT_SECONDS
    ) -> RunStore:
        """Return a store whose tables are those of this release, upgrading them if they are older or not there.

        Raises:
            RunStoreDatabaseUnsupported: It is another kind of database.
            RunStoreSchemaTooNew: A newer release made the tables.
            RunStoreDirectoryMissing: The SQLite file's directory does not exist.
            RunStoreUnavailable: The database does not answer as it should.
        """
        store = cls(engine, now=now, wait_seconds=wait_seconds)
        with store._transaction() as connection:
            status = schema_status(connection)
        if status is not SchemaStatus.CURRENT:
            store.upgrade()
        return store

    def upgrade(self) -> None:
        """Make the tables, or bring older ones up to date, under a lock; safe when several processes do it at once.

        Raises:
            RunStoreSchemaTooNew: A newer release made the tables.
            RunStoreDirectoryMissing: The SQLite file's directory does not exist.
            RunStoreUnavailable: The database does not answer as it should.
        """
        with self._transaction(wait_seconds=_UPGRADE_WAIT_SECONDS) as connection:
            upgrade_schema(connection)

    def check_schema(self) -> None:
        """Make sure that the tables are those of this release.

        Raises:
            RunStoreSchemaOutdated: An older release made them, or nobody did.
            RunStoreSchemaTooNew: A newer release made them.
            RunStoreDirectoryMissing: The SQLite file's directory does not exist.
            RunStoreUnavailable: The database does not answer as it should.
        """
        with self._transaction() as connection:
            check_schema(connection)

    def record_run(
        self,
        dag_id: str,
        run_id: str,
        facts: RunFacts = _NO_RUN_FACTS,
        *,
        state: RunState | None = None,
        state_at: datetime | None = None,
        failure: Failure | None = None,
        observed_at: datetime | None = None,
    ) -> None:
        """Record what is known of a run as a whole. May be repeated, late, and out of order.

        Args:
            dag_id: As Airflow has it.
            run_id: As Airflow has it.
            facts: What is known; the rest stays as it is.
            state: Where the run as a whole is. Mostly that follows from its attempts; only this can say that it
                succeeded.
            state_at: Since when, for an end the end of the DAG run; the default is ``observed_at``. A callback, which
                may be late, must give it: a try that began after it counts more.
            failure: Why the run did not succeed, where no attempt can tell.
            observed_at: When this was observed; the default is now.

        Raises:
            ValueError: A time is naive.
            RunStoreUnavailable: The database does not answer as it should; nothing is recorded.
        """
        observed = as_utc(observed_at or self._now())
        word = None
        if state is not None:
            word = RunWord(state=state, state_at=as_utc(state_at or observed), failure=failure)
        with self._transaction() as connection:
            held = _hold_run(connection, dag_id, run_id, observed)
            _settle(connection, held, merge_run(held, facts=facts, word=word, observed_at=observed))

    def record_attempt(
        self,
        key: AttemptKey,
        state: RunState,
        facts: AttemptFacts = _NO_ATTEMPT_FACTS,
        *,
        observed_at: datetime | None = None,
    ) -> None:
        """Record what is known of one try of one task. May be repeated, late, and out of order; the run follows.

        Args:
            key: Which try of which task.
            state: Where it is.
            facts: What is known; the rest stays as it is. ``started_at`` should always be among it.
            observed_at: When this was observed; the default is now.

        Raises:
            ValueError: A time is naive.
            RunStoreUnavailable: The database does not answer as it should; nothing is recorded.
        """
        observed = as_utc(observed_at or self._now())
        with self._transaction() as connection:
            run = _hold_run(connection, key.dag_id, key.run_id, observed)
            primary_key = {
                "training_run_id": run["training_run_id"],
                "task_id": clean_text(key.task_id, MAX_ID_CHARACTERS),
                "map_index": key.map_index,
                "try_number": key.try_number,
            }
            held = _row(connection, training_attempts, primary_key)
            merged = merge_attempt(held, state=state, facts=facts, observed_at=observed)
            _store(connection, training_attempts, primary_key, held, merged)
            _settle(connection, run, merge_run(run, facts=_NO_RUN_FACTS, word=None, observed_at=observed))

    def runs(
        self,
        limit: int = 50,
        *,
        before: str | None = None,
        state: RunState | None = None,
        dag_ids: Collection[str] | None = None,
        adapter_name: str | None = None,
    ) -> list[TrainingRun]:
        """Return the newest runs first, without their attempts.

        Args:
            limit: 1 to 1000.
            before: ``cursor`` of the last run of the page before; ``None``: the first page.
            state: Only runs in this state.
            dag_ids: Only runs of these DAGs.
            adapter_name: Only runs of this adapter.

        Raises:
            CursorInvalid: ``before`` is no cursor.
            ValueError: ``limit`` is out of bounds.
            RunStoreUnavailable: The database does not answer as it should.
        """
        if not 1 <= limit <= MAX_RUNS_PER_PAGE:
            raise ValueError(f"limit is {limit}; expected 1 to {MAX_RUNS_PER_PAGE}")
        columns = training_runs.c
        order = (columns.first_observed_at, columns.training_run_id)
        query = select(training_runs).order_by(*(column.desc() for column in order)).limit(limit)
        if before is not None:
            moment, run = _parse_cursor(before)
            query = query.where(tuple_(*order) < tuple_(literal(moment, UtcDateTime), literal(run)))
        if dag_ids is not None:
            query = query.where(columns.dag_id.in_([clean_text(dag_id, MAX_ID_CHARACTERS) for dag_id in dag_ids]))
        for column, wanted in ((columns.state, state), (columns.adapter_name, adapter_name)):
            if wanted is not None:
                query = query.where(column == clean_text(wanted, MAX_ID_CHARACTERS))
        with self._transaction() as connection:
            return [training_run(dict(row)) for row in connection.execute(query).mappings()]

    def run(self, training_run_id: str) -> TrainingRun | None:
        """Return one run with its attempts, or ``None``.

        Raises:
            RunStoreUnavailable: The database does not answer as it should.
        """
        columns = training_attempts.c
        query = (
            select(training_attempts)
            .where(columns.training_run_id == clean_text(training_run_id))
            .order_by(columns.task_id, columns.map_index, columns.try_number)
        )
        with self._transaction() as connection:
            row = _row(connection, training_runs, {"training_run_id": clean_text(training_run_id)})
            attempts = [dict(attempt) for attempt in connection.execute(query).mappings()]
        return None if row is None else training_run(row, attempts)

    def run_of(self, dag_id: str, run_id: str) -> TrainingRun | None:
        """Return the run that a DAG run is, with its attempts, or ``None``.

        Raises:
            RunStoreUnavailable: The database does not answer as it should.
        """
        return self.run(training_run_id(dag_id, run_id))

    @contextmanager
    def _transaction(self, *, wait_seconds: int | None = None) -> Iterator[Connection]:
        url = self._engine.url
        try:
            prepare_sqlite_file(url)
            with self._engine.begin() as connection:
                _limit_waiting(connection, self._wait_seconds if wait_seconds is None else wait_seconds)
                yield connection
        except SQLAlchemyError as error:
            # Not chained: drivers quote the statement with its values, and a task log is no place for people's text.
            raise RunStoreUnavailable(url=url, problem=_problem(error)) from None
        except OSError as error:
            raise RunStoreUnavailable(url=url, problem=_problem(error)) from error


def _limit_waiting(connection: Connection, wait_seconds: int) -> None:
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {wait_seconds * 1000}")
    else:
        limits = "SELECT set_config('lock_timeout', :limit, true), set_config('statement_timeout', :limit, true)"
        connection.execute(text(limits), {"limit": f"{wait_seconds}s"})


def _problem(error: Exception) -> str:
    """Return the driver's own first line: the others may quote rows."""
    first_line, *_ = str(getattr(error, "orig", None) or error).strip().splitlines() or [type(error).__name__]
    return one_line(first_line, _MAX_PROBLEM_CHARACTERS)


def _hold_run(connection: Connection, dag_id: str, run_id: str, observed_at: datetime) -> Row:
    """Return the run's row, made if it was not there, and keep other writers of this run waiting until the end.

    The INSERT comes first on purpose: in SQLite it takes the write lock before anything is read, so that no transaction
    has to turn a read lock into a write lock; in PostgreSQL the row is locked by the SELECT.
    """
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    new: Row = {
        "training_run_id": training_run_id(dag_id, run_id),
        "dag_id": clean_text(dag_id, MAX_ID_CHARACTERS),
        "run_id": clean_text(run_id, MAX_ID_CHARACTERS),
        "state": RunState.QUEUED,
        "first_observed_at": observed_at,
        "updated_at": observed_at,
        "fact_times": {},
    }
    connection.execute(insert(training_runs).values(new).on_conflict_do_nothing(index_elements=["training_run_id"]))
    query = select(training_runs).where(training_runs.c.training_run_id == new["training_run_id"]).with_for_update()
    return dict(connection.execute(query).mappings().one())


def _settle(connection: Connection, held: Row, merged: Row) -> None:
    """Store the run's row with what follows from its attempts."""
    primary_key = {"training_run_id": held["training_run_id"]}
    columns = [training_attempts.c[name] for name in ATTEMPT_COLUMNS_NEEDED]
    query = select(*columns).where(training_attempts.c.training_run_id == held["training_run_id"])
    attempts = [dict(row) for row in connection.execute(query).mappings()]
    _store(connection, training_runs, primary_key, held, settle_run(merged, attempts))


def _row(connection: Connection, table: Table, primary_key: Row) -> Row | None:
    found = connection.execute(select(table).filter_by(**primary_key)).mappings().one_or_none()
    return None if found is None else dict(found)


def _store(connection: Connection, table: Table, primary_key: Row, held: Row | None, merged: Row) -> None:
    """Write what is new in a row: of a heartbeat a few numbers, and not the output excerpts beside them."""
    if held is None:
        connection.execute(table.insert().values({**primary_key, **merged}))
        return
    changes = {column: value for column, value in merged.items() if value != held[column]}
    if changes:
        connection.execute(table.update().filter_by(**primary_key).values(changes))


def _parse_cursor(cursor: str) -> tuple[datetime, str]:
    moment, separator, run = cursor.partition("~")
    try:
        if not separator:
            raise ValueError("no ~")
        return as_utc(datetime.fromisoformat(moment)), clean_text(run)
    except (ValueError, OverflowError) as error:
        raise CursorInvalid(f"before is {cursor[:100]!r}; expected the cursor of a run") from error
