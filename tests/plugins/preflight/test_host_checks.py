"""What the Airflow side checks itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from peft_retraining.preflight.findings import PreflightFailed, PreflightReport, errors_first
from peft_retraining.preflight.host_checks import (
    COMFORTABLE_FREE_BYTES,
    MIN_FREE_BYTES,
    check_adapters_directory,
    check_disk_space,
    check_run_store,
)
from training_contract.preflight_report import Finding, Severity


@pytest.mark.parametrize(
    ("free", "severities"),
    [
        (COMFORTABLE_FREE_BYTES, []),
        (COMFORTABLE_FREE_BYTES - 1, [Severity.WARNING]),
        (MIN_FREE_BYTES, [Severity.WARNING]),
        (MIN_FREE_BYTES - 1, [Severity.ERROR]),
    ],
)
def test_little_space_is_a_warning_and_too_little_an_error(
    tmp_path: Path, free: int, severities: list[Severity]
) -> None:
    findings = check_disk_space([tmp_path], free_bytes=lambda _: free)

    assert [finding.severity for finding in findings] == severities
    assert all(str(tmp_path) in finding.message for finding in findings)


def test_the_adapters_directory_is_made_and_not_for_everybody(tmp_path: Path) -> None:
    directory = tmp_path / "new" / "adapters"

    assert check_adapters_directory(directory) == []
    assert directory.stat().st_mode & 0o007 == 0
    assert list(directory.iterdir()) == []


def test_an_adapters_directory_that_cannot_be_written_is_named_with_its_setting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    [finding] = check_adapters_directory(tmp_path / "file" / "adapters")

    assert (finding.code, finding.severity) == ("ADAPTERS_DIRECTORY_UNWRITABLE", Severity.ERROR)
    assert "adapters_directory" in finding.remedy


@pytest.mark.parametrize(
    ("dialect", "executors", "refused"),
    [
        ("sqlite", ["LocalExecutor"], False),
        ("sqlite", ["CeleryExecutor"], True),
        ("sqlite", ["LocalExecutor", "KubernetesExecutor"], True),
        ("postgresql", ["CeleryExecutor"], False),
    ],
)
def test_a_sqlite_record_is_refused_where_tasks_run_on_other_machines(
    dialect: str, executors: list[str], refused: bool
) -> None:
    assert bool(check_run_store(dialect=dialect, executors=executors)) is refused


def finding(code: str, severity: Severity) -> Finding:
    return Finding(code=code, severity=severity, message=f"{code} was found", remedy=f"mend {code}")


def test_errors_come_first_and_the_rest_keeps_its_order() -> None:
    found = [
        finding("A", Severity.INFO),
        finding("B", Severity.WARNING),
        finding("C", Severity.ERROR),
        finding("D", Severity.ERROR),
    ]

    assert [item.code for item in errors_first(found)] == ["C", "D", "B", "A"]


def test_a_failed_preflight_names_the_first_error_and_counts_the_others() -> None:
    report = PreflightReport(findings=(finding("C", Severity.ERROR), finding("D", Severity.ERROR)))
    failure = PreflightFailed(report)

    assert str(failure) == "C: C was found (and 1 more: D)"
    assert (failure.failure_code, failure.remedy, failure.retryable) == ("preflight_c", "mend C", False)
