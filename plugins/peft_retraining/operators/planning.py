"""Plans a run and writes its spec, for the two tasks that need it: preflight, and training after it."""

from __future__ import annotations

import errno

from peft_retraining.errors import InfrastructureError, PlatformError, RetrainingError
from peft_retraining.run_planning.plan import ModelFinding, plan_run
from peft_retraining.settings import Settings
from training_contract.documents import read_document, write_document
from training_contract.errors import ContractError
from training_contract.locations import RunDirectory
from training_contract.preflight_report import TrainerPreflightReport
from training_contract.run_spec import RunSpec
from training_contract.snapshot import SnapshotManifest


def write_spec(
    run_directory: RunDirectory, settings: Settings, *, dag_id: str, run_id: str, model: ModelFinding | None
) -> RunSpec:
    """Plan the run from its frozen rows and write ``spec.json``.

    Args:
        run_directory: With the snapshot in it.
        settings: Of this run.
        dag_id: As Airflow has it.
        run_id: Likewise.
        model: What preflight found out about the base model; ``None`` before it has looked.

    Raises:
        PlatformError: The snapshot is not there, or the run directory cannot be written.
        InfrastructureError: The disk is full.
    """
    spec = plan_run(settings, read_snapshot(run_directory), dag_id=dag_id, run_id=run_id, model=model)
    try:
        write_document(run_directory.spec_file, spec)
    except OSError as error:
        raise unwritable(run_directory, error) from error
    return spec


def unwritable(run_directory: RunDirectory, error: OSError) -> RetrainingError:
    """Say that a run directory cannot be written, and whether that may pass."""
    found = f"the run directory {run_directory.root} cannot be written: {error.strerror or error}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return InfrastructureError(
            found, failure_code="disk_full", remedy=f"Free space on the file system of {run_directory.root}."
        )
    return PlatformError(
        found,
        failure_code="run_directory_unwritable",
        remedy="Make the setting runs_directory writable for the Airflow worker's user.",
    )


def read_snapshot(run_directory: RunDirectory) -> SnapshotManifest:
    """Return the manifest of this run's frozen rows.

    Raises:
        PlatformError: It is not there.
    """
    try:
        return read_document(run_directory.snapshot_file, SnapshotManifest)
    except ContractError as error:
        raise _not_shared("snapshot", "snapshot_training_data", error) from error


def model_found_by_preflight(run_directory: RunDirectory) -> ModelFinding:
    """Return what the preflight of this run found out about the base model.

    Raises:
        PlatformError: Its report is not there.
    """
    try:
        report = read_document(run_directory.preflight_file, TrainerPreflightReport)
    except ContractError as error:
        raise _not_shared("preflight report", "preflight", error) from error
    return ModelFinding(cache_state=report.cache_state, revision=report.base_model_revision)


def _not_shared(what: str, task_id: str, error: ContractError) -> PlatformError:
    return PlatformError(
        f"the {what} of this run cannot be read: {error}",
        failure_code=f"{what.replace(' ', '_')}_missing",
        remedy=f"Clear the task {task_id} of this run, and see that every worker shares the setting runs_directory.",
    )
