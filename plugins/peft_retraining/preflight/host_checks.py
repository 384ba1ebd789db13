"""What the Airflow side can check itself: disk, the adapter store, the record of runs."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from peft_retraining.preflight.findings import FindingCode
from training_contract.durable_files import temporary_name
from training_contract.locations import DIRECTORY_MODE
from training_contract.preflight_report import Finding, Severity

MIN_FREE_BYTES = 512 * 1024 * 1024
"""Below this a run is refused: an adapter, its checkpoints and logs would hardly fit."""
COMFORTABLE_FREE_BYTES = 4 * MIN_FREE_BYTES
"""Below this a run is warned about."""

ONE_MACHINE_EXECUTORS = frozenset({"LocalExecutor", "SequentialExecutor", "DebugExecutor"})
"""Airflow executors whose tasks run where the scheduler runs."""
_MEBIBYTE = 1024 * 1024


def check_disk_space(
    directories: Iterable[Path], *, free_bytes: Callable[[Path], int] = lambda path: shutil.disk_usage(path).free
) -> list[Finding]:
    """Check that there is room where runs and adapters are written.

    Args:
        directories: Existing directories.
        free_bytes: Tells the free space of a directory's file system.
    """
    findings = []
    for directory in directories:
        free = free_bytes(directory)
        if free < COMFORTABLE_FREE_BYTES:
            findings.append(
                Finding(
                    code=FindingCode.DISK_SPACE_LOW,
                    severity=Severity.ERROR if free < MIN_FREE_BYTES else Severity.WARNING,
                    message=f"{free // _MEBIBYTE} MiB are free at {directory}; a run needs "
                    f"{MIN_FREE_BYTES // _MEBIBYTE} MiB, comfortable are {COMFORTABLE_FREE_BYTES // _MEBIBYTE}",
                    remedy=f"Free space on the file system of {directory}: delete old run directories and versions.",
                    evidence={"path": str(directory), "free_bytes": str(free)},
                )
            )
    return findings


def check_adapters_directory(directory: Path) -> list[Finding]:
    """Check that adapters can be published, and create the directory when it is not there yet."""
    try:
        if not directory.is_dir():
            directory.mkdir(parents=True)
            directory.chmod(DIRECTORY_MODE)
        probe = temporary_name(directory / "probe")
        probe.touch()
        probe.unlink()
    except OSError as error:
        return [
            Finding(
                code=FindingCode.ADAPTERS_DIRECTORY_UNWRITABLE,
                severity=Severity.ERROR,
                message=f"adapters cannot be published to {directory}: {error.strerror or error}",
                remedy=f"Make {directory} (setting adapters_directory) writable for the Airflow worker's user.",
                evidence={"path": str(directory)},
            )
        ]
    return []


def check_run_store(*, dialect: str, executors: Sequence[str]) -> list[Finding]:
    """Check that all workers see the same record of runs.

    Args:
        dialect: SQLAlchemy's name of the store's database.
        executors: Class names of Airflow's executors.
    """
    remote = [name for name in executors if name not in ONE_MACHINE_EXECUTORS]
    if dialect != "sqlite" or not remote:
        return []
    return [
        Finding(
            code=FindingCode.RUN_STORE_NOT_SHARED,
            severity=Severity.ERROR,
            message=f"the record of runs is a SQLite file, and tasks run on other machines ({', '.join(remote)})",
            remedy="Define the Airflow connection of the setting run_store_conn_id with a PostgreSQL database.",
            evidence={"dialect": dialect, "executors": ", ".join(executors)},
        )
    ]
