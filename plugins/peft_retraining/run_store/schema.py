"""The version of the tables: asked, checked, brought up to date."""

from __future__ import annotations

import hashlib
from enum import StrEnum
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, column, inspect, select, table, text

from peft_retraining.run_store.store_errors import RunStoreSchemaOutdated, RunStoreSchemaTooNew

VERSION_TABLE = "peft_retraining_alembic_version"
"""Apart from the ``alembic_version`` of whoever else uses the database."""

_MIGRATIONS = Path(__file__).parent / "migrations"
_LOCK_KEY = int.from_bytes(hashlib.sha256(VERSION_TABLE.encode()).digest()[:8], "big", signed=True)


class SchemaStatus(StrEnum):
    """How the tables found compare with those this release knows."""

    CURRENT = "current"
    OUTDATED = "outdated"
    TOO_NEW = "too_new"


def schema_status(connection: Connection) -> SchemaStatus:
    """Compare the tables' version with ours."""
    found, expected, known = _versions(connection)
    if found == expected:
        return SchemaStatus.CURRENT
    return SchemaStatus.OUTDATED if found is None or found in known else SchemaStatus.TOO_NEW


def check_schema(connection: Connection) -> None:
    """Make sure that the tables are those this release knows.

    Raises:
        RunStoreSchemaOutdated: An older release made them, or nobody did.
        RunStoreSchemaTooNew: A newer release made them.
    """
    status = schema_status(connection)
    found, expected, _ = _versions(connection)
    if status is SchemaStatus.OUTDATED:
        raise RunStoreSchemaOutdated(url=connection.engine.url, found=found, expected=expected)
    if status is SchemaStatus.TOO_NEW:
        raise RunStoreSchemaTooNew(url=connection.engine.url, found=str(found), expected=expected)


def upgrade_schema(connection: Connection) -> None:
    """Bring the tables up to date, in the transaction of ``connection``, while nobody else can.

    Args:
        connection: On which nothing has been executed yet. The caller commits.

    Raises:
        RunStoreSchemaTooNew: A newer release made the tables; nothing is changed.
        sqlalchemy.exc.SQLAlchemyError: The database refuses; nothing is changed.
    """
    if connection.dialect.name == "sqlite":
        # The driver begins a transaction only before INSERT, UPDATE and DELETE: without this, neither would the lock be
        # held nor would the migrations be one transaction.
        connection.exec_driver_sql("BEGIN EXCLUSIVE")
    else:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})
    if schema_status(connection) is not SchemaStatus.OUTDATED:
        check_schema(connection)
        return
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _versions(connection: Connection) -> tuple[str | None, str, frozenset[str]]:
    """Return the version found (``None``: no tables), the one expected, and all that this release knows."""
    scripts = ScriptDirectory(str(_MIGRATIONS))
    known = [script.revision for script in scripts.walk_revisions()]
    # Asked here and not of Alembic's MigrationContext, which writes two lines into the log of every task that opens it.
    found = None
    if inspect(connection).has_table(VERSION_TABLE):
        found = connection.scalar(select(column("version_num")).select_from(table(VERSION_TABLE)))
    return found, known[0], frozenset(known)
