"""The findings of the Airflow side, their codes, and what a report means (pure)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from peft_retraining.errors import UserError
from training_contract.preflight_report import CacheState, Finding, Severity

_ORDER = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.INFO: 2}


class FindingCode(StrEnum):
    """Codes of what the Airflow side checks; the trainer's own are in ``peft_trainer.preflight``.

    What the runner says about itself comes with its failure code in upper case, for example ``TRAINER_COMMAND_NOT_SET``
    or ``TRAINER_ENVIRONMENT_MISSING``.
    """

    TRAINER_PREFLIGHT_FAILED = "TRAINER_PREFLIGHT_FAILED"
    DISK_SPACE_LOW = "DISK_SPACE_LOW"
    ADAPTERS_DIRECTORY_UNWRITABLE = "ADAPTERS_DIRECTORY_UNWRITABLE"
    RUN_STORE_NOT_SHARED = "RUN_STORE_NOT_SHARED"


@dataclass(frozen=True, slots=True, kw_only=True)
class PreflightReport:
    """All findings of a preflight.

    Attributes:
        findings: Errors first.
        cache_state: State of the base model's files; ``None``: the trainer could not be asked.
        base_model_revision: The commit that the base model's revision stands for.
    """

    findings: tuple[Finding, ...]
    cache_state: CacheState | None = None
    base_model_revision: str | None = None

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that stop the run."""
        return tuple(finding for finding in self.findings if finding.severity is Severity.ERROR)


class PreflightFailed(UserError):
    """Preflight found errors; training does not start."""

    def __init__(self, report: PreflightReport) -> None:
        self.report = report
        first, *others = report.errors
        more = f" (and {len(others)} more: {', '.join(error.code for error in others)})" if others else ""
        super().__init__(
            f"{first.code}: {first.message}{more}",
            failure_code=f"preflight_{first.code.lower()}",
            remedy=first.remedy,
            evidence={
                "findings": [
                    {"code": finding.code, "severity": finding.severity.value, "message": finding.message}
                    for finding in report.findings
                ]
            },
        )


def errors_first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Order findings by how much they matter, otherwise as they were found."""
    return tuple(sorted(findings, key=lambda finding: _ORDER[finding.severity]))
