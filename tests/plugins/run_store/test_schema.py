from __future__ import annotations

import logging
import multiprocessing
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, create_engine, inspect, text

from peft_retraining.errors import RetrainingError
from peft_retraining.run_store.schema import VERSION_TABLE
from peft_retraining.run_store.store import RunStore
from peft_retraining.run_store.store_errors import (
    RunStoreDirectoryMissing,
    RunStoreSchemaOutdated,
    RunStoreSchemaTooNew,
    RunStoreUnavailable,
)
from peft_retraining.run_store.tables import metadata


def test_the_migrations_make_exactly_the_tables_that_the_code_uses(engine: Engine) -> None:
    RunStore(engine).upgrade()

    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE, "compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_identifiers_fit_in_postgresql() -> None:
    names = [index.name for table in metadata.tables.values() for index in table.indexes]
    names += [constraint.name for table in metadata.tables.values() for constraint in table.constraints]
    assert all(len(str(name)) <= 63 for name in names)


def test_upgrading_twice_changes_nothing(engine: Engine) -> None:
    store = RunStore.open(engine)
    store.record_run("dag", "run")
    store.upgrade()
    store.check_schema()
    assert [run.run_id for run in store.runs()] == ["run"]


def test_an_empty_database_is_called_outdated_and_says_what_to_run(engine: Engine) -> None:
    with pytest.raises(RunStoreSchemaOutdated, match="has schema none; expected 0001") as caught:
        RunStore(engine).check_schema()
    assert caught.value.failure_code == "run_store_schema_outdated"
    assert "peft-retraining db upgrade" in caught.value.remedy


@pytest.mark.parametrize("act", [RunStore.check_schema, RunStore.upgrade, lambda store: RunStore.open(store._engine)])
def test_a_newer_schema_is_refused_and_left_alone(engine: Engine, act: Any) -> None:
    store = RunStore.open(engine)
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))

    with pytest.raises(RunStoreSchemaTooNew, match="has schema 9999, which is newer") as caught:
        act(store)

    assert caught.value.failure_code == "run_store_schema_too_new"
    with engine.connect() as connection:
        assert connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}")) == "9999"


def test_another_alembic_in_the_same_database_is_left_alone(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)"))
        connection.execute(text("INSERT INTO alembic_version VALUES ('theirs')"))

    RunStore.open(engine).check_schema()

    with engine.connect() as connection:
        assert connection.scalar(text("SELECT version_num FROM alembic_version")) == "theirs"


def test_a_migration_that_fails_leaves_nothing_behind(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE training_attempts (somebody_elses INTEGER)"))

    with pytest.raises(RunStoreUnavailable, match="already exists"):
        RunStore(engine).upgrade()

    assert inspect(engine).get_table_names() == ["training_attempts"]


def _open_and_record(url: str, name: str, barrier: Any, problems: Any) -> None:
    engine = create_engine(url)
    try:
        barrier.wait()
        RunStore.open(engine).record_run("dag", name)
    except RetrainingError as error:
        problems.put(str(error))
    finally:
        engine.dispose()


def test_two_processes_that_upgrade_at_once_both_find_the_tables(database_url: str, engine: Engine) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, problems = context.Barrier(2), context.SimpleQueue()
    processes = [
        context.Process(target=_open_and_record, args=(database_url, name, barrier, problems)) for name in ("a", "b")
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()

    assert problems.empty(), problems.get()
    assert [process.exitcode for process in processes] == [0, 0]
    assert {run.run_id for run in RunStore(engine).runs()} == {"a", "b"}
    with engine.connect() as connection:
        assert connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).all() == [("0001",)]


def test_upgrading_waits_for_who_upgrades_already(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    """With the lock held by another connection the upgrade gives up after its time, having touched nothing."""
    from peft_retraining.run_store import schema

    with engine.connect() as holder, engine.connect() as other:
        with holder.begin():
            schema.upgrade_schema(holder)
            with other.begin():
                limit = "PRAGMA busy_timeout = 50" if engine.dialect.name == "sqlite" else "SET LOCAL lock_timeout = 50"
                other.exec_driver_sql(limit)
                with pytest.raises(Exception, match="lock"):
                    schema.upgrade_schema(other)
        with other.begin():
            schema.upgrade_schema(other)
            schema.check_schema(other)


def test_upgrading_leaves_the_logging_of_the_process_alone(engine: Engine) -> None:
    before = (logging.root.level, list(logging.root.handlers))
    RunStore.open(engine)
    assert (logging.root.level, list(logging.root.handlers)) == before


def test_the_sqlite_file_is_for_owner_and_group_whatever_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    engine = create_engine(f"sqlite:///{path}")
    umask = os.umask(0o077)
    try:
        RunStore.open(engine)
    finally:
        os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    engine.dispose()


def test_the_mode_of_an_existing_sqlite_file_is_its_owners_choice(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    path.touch(mode=0o600)
    engine = create_engine(f"sqlite:///{path}")
    RunStore.open(engine)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    engine.dispose()


def test_a_missing_directory_is_named_and_not_created(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'nowhere' / 'runs.db'}")
    with pytest.raises(RunStoreDirectoryMissing, match="nowhere does not exist") as caught:
        RunStore.open(engine)
    assert caught.value.failure_code == "run_store_directory_missing"
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_a_database_in_memory_needs_no_file(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    engine = create_engine(url)
    RunStore.open(engine).check_schema()
    assert list(tmp_path.iterdir()) == []
    engine.dispose()
