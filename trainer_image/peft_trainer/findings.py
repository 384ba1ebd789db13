"""How the trainer's preflight makes its findings."""

from __future__ import annotations

from collections.abc import Mapping

from training_contract.preflight_report import Finding, Severity


def error_finding(code: str, message: str, remedy: str, evidence: Mapping[str, str] | None = None) -> Finding:
    """Return a finding that stops the run."""
    return Finding(code=code, severity=Severity.ERROR, message=message, remedy=remedy, evidence=evidence or {})


def warning_finding(code: str, message: str, remedy: str, evidence: Mapping[str, str] | None = None) -> Finding:
    """Return a finding that people should know and that stops nothing."""
    return Finding(code=code, severity=Severity.WARNING, message=message, remedy=remedy, evidence=evidence or {})


def info_finding(code: str, message: str, evidence: Mapping[str, str] | None = None) -> Finding:
    """Return a finding that only informs."""
    return Finding(code=code, severity=Severity.INFO, message=message, evidence=evidence or {})
