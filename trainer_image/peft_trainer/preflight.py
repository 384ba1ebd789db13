"""Everything that can be checked before training, in the environment that will train; all findings at once.

Comes in: a run directory with spec and snapshot. Goes out: ``preflight.json``; the report is the answer, whatever it
says. Here are the checks that need the standard library only; ``rehearsal`` has those that need the trainer's packages,
and is left out where one of them is missing: the finding that says so comes from here.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from peft_trainer import environment, logs
from peft_trainer.environment import REQUIREMENTS
from peft_trainer.errors import TrainingSettingsInvalid
from peft_trainer.findings import error_finding, warning_finding
from peft_trainer.model_files import ModelFiles
from peft_trainer.training_settings import check_training_settings
from training_contract.documents import read_document, write_document
from training_contract.durable_files import TEMPORARY_PREFIX
from training_contract.errors import ContractError
from training_contract.exit_codes import ExitCode
from training_contract.locations import RunDirectory
from training_contract.preflight_report import CacheState, Finding, Severity, TrainerPreflightReport
from training_contract.run_spec import RunSpec

logger = logging.getLogger(__name__)

_REINSTALL: Final = "Install the trainer's requirements again, in the versions of its lock file."
_LOW_DISK_BYTES: Final = 1024**3
_SEVERITIES: Final = tuple(Severity)


def write_report(run: RunDirectory) -> ExitCode:
    """Check a run and write ``preflight.json``.

    Args:
        run: The run directory; it exists.

    Raises:
        OSError: The report cannot be written.
    """
    logs.configure_logging()
    environment.silence()
    os.environ["HF_HUB_OFFLINE"] = "1"  # what is not here is a finding, not a download
    report = check_run(run)
    logs.log_findings(report.findings)
    write_document(run.preflight_file, report)
    return ExitCode.SUCCESS


def check_run(run: RunDirectory) -> TrainerPreflightReport:
    """Check a run before it is trained.

    Args:
        run: The run directory.
    """
    versions = environment.installed_versions()
    findings = [*_dependency_findings(versions), *_directory_findings(run.root)]
    files = None
    try:
        spec = read_document(run.spec_file, RunSpec)
    except ContractError as error:
        remedy = "Let the Airflow side write spec.json, in the same release as the trainer."
        findings.append(error_finding("SPEC_INVALID", str(error), remedy))
    else:
        findings.extend(_settings_findings(spec))
        files = _rehearse(run, spec, findings)
    return TrainerPreflightReport(
        findings=tuple(sorted(findings, key=lambda finding: _SEVERITIES.index(finding.severity))),
        versions=versions,
        cache_state=files.state if files else CacheState.ABSENT,
        base_model_revision=files.commit if files else None,
        checked_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
    )


def _rehearse(run: RunDirectory, spec: RunSpec, findings: list[Finding]) -> ModelFiles | None:
    try:
        from peft_trainer import rehearsal  # noqa: PLC0415  # a missing package is a finding
    except ImportError as error:
        logger.warning("Data, model, adapter and GPU are not checked, because a package is missing: %s", error)
        if not any(finding.code.startswith("DEPENDENCY_") for finding in findings):
            findings.append(error_finding("DEPENDENCY_MISSING", f"a package cannot be imported: {error}", _REINSTALL))
        return None
    files = rehearsal.find_model(spec)
    findings.extend(rehearsal.findings(run, spec, files))
    return files


def _dependency_findings(versions: Mapping[str, str]) -> Iterator[Finding]:
    for name, needed in REQUIREMENTS.items():
        if name not in versions:
            message = f"the Python package {name} is not installed; needed: {needed}"
            yield error_finding("DEPENDENCY_MISSING", message, _REINSTALL)
        elif (problem := environment.version_problem(versions[name], needed)) is not None:
            message = f"the Python package {name} is {versions[name]}, which is {problem}; needed: {needed}"
            yield error_finding(f"DEPENDENCY_{problem.upper().replace(' ', '_')}", message, _REINSTALL)


def _settings_findings(spec: RunSpec) -> Iterator[Finding]:
    try:
        check_training_settings(spec.training)
    except TrainingSettingsInvalid as error:
        yield error_finding("TRAINING_SETTINGS_INVALID", str(error), error.remedy)


def _directory_findings(directory: Path) -> Iterator[Finding]:
    try:
        with tempfile.TemporaryFile(dir=directory, prefix=TEMPORARY_PREFIX):
            free = shutil.disk_usage(directory).free
    except OSError as error:
        yield error_finding(
            "RUN_DIRECTORY_UNWRITABLE",
            f"the trainer cannot write into {directory}: {error.strerror}",
            "Let the trainer's user write there: owner, group, mode, and a mount that is not read-only.",
        )
        return
    if free < _LOW_DISK_BYTES:
        message = f"{free} bytes are free where the run directories lie"
        yield warning_finding("DISK_SPACE_LOW", message, "Free space there; checkpoints and the adapter must fit.")
