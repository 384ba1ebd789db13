"""What can be wrong with the run store.

::

    InfrastructureError
    `-- RunStoreUnavailable          the database did not answer as it should; a caller may decide to go on without
    PlatformError
    |-- RunStoreDatabaseUnsupported  neither SQLite nor PostgreSQL
    |-- RunStoreDirectoryMissing     the SQLite file's directory is not there
    |-- RunStoreSchemaOutdated       an older release made the tables, or nobody did
    `-- RunStoreSchemaTooNew         a newer release made the tables
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy.engine import URL

from peft_retraining.database_address import shown_address
from peft_retraining.errors import InfrastructureError, PlatformError


class RunStoreUnavailable(InfrastructureError):
    """The database did not answer as it should."""

    def __init__(self, *, url: URL, problem: str) -> None:
        super().__init__(
            f"the run store {shown_address(url)} cannot be used: {problem}",
            failure_code="run_store_unavailable",
            remedy="Check that the database of the run store's connection answers and lets its user write.",
            evidence={"database": shown_address(url), "problem": problem},
        )


class RunStoreDatabaseUnsupported(PlatformError):
    """The database is neither SQLite nor PostgreSQL."""

    def __init__(self, *, kind: str) -> None:
        super().__init__(
            f"the run store's database is of the kind {kind}; expected sqlite or postgresql",
            failure_code="run_store_database_unsupported",
            remedy="Let the run store's connection name a PostgreSQL database, or remove it to use a SQLite file.",
            evidence={"kind": kind},
        )


class RunStoreDirectoryMissing(PlatformError):
    """The directory that shall hold the SQLite file does not exist."""

    def __init__(self, *, directory: Path) -> None:
        super().__init__(
            f"the run store's directory {directory} does not exist",
            failure_code="run_store_directory_missing",
            remedy="Create the directory, or correct the path in the run store's connection.",
            evidence={"directory": str(directory)},
        )


class RunStoreSchemaOutdated(PlatformError):
    """The tables are those of an older release, or there are none."""

    def __init__(self, *, url: URL, found: str | None, expected: str) -> None:
        super().__init__(
            f"the run store {shown_address(url)} has schema {found or 'none'}; expected {expected}",
            failure_code="run_store_schema_outdated",
            remedy="Run `peft-retraining db upgrade`.",
            evidence={"found": found, "expected": expected},
        )


class RunStoreSchemaTooNew(PlatformError):
    """The tables are those of a newer release."""

    def __init__(self, *, url: URL, found: str, expected: str) -> None:
        super().__init__(
            f"the run store {shown_address(url)} has schema {found}, which is newer than this release understands; "
            f"expected {expected}",
            failure_code="run_store_schema_too_new",
            remedy="Install the release of airflow-peft-retraining that upgraded the run store, or a newer one.",
            evidence={"found": found, "expected": expected},
        )
