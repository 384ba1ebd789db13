"""``preflight.json``: what the trainer's environment says about itself and about a spec, before training.

The same shape carries the findings of the Airflow side, so that a reader sees one list.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Severity(StrEnum):
    """How much a finding matters."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


class CacheState(StrEnum):
    """How much of the base model is there."""

    COMPLETE = "complete"
    PARTIAL = "partial"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was checked and is worth saying.

    Attributes:
        code: Stable, upper case, for example ``"MODEL_CACHE_ABSENT"``.
        severity: An error stops the run before training.
        message: What was found and what was expected.
        remedy: What to do; empty for information.
        evidence: Facts behind the message, by name.
    """

    code: str
    severity: Severity
    message: str
    remedy: str = ""
    evidence: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerPreflightReport:
    """The trainer's answer to ``python -m peft_trainer preflight``.

    Attributes:
        findings: All of them, errors first.
        versions: Versions of the packages in the trainer's environment, by distribution name.
        cache_state: State of the base model's files.
        base_model_revision: The commit that a hub id stands for in the cache; ``None``: unknown or a directory.
        checked_at: UTC ISO 8601.
    """

    findings: tuple[Finding, ...]
    versions: Mapping[str, str]
    cache_state: CacheState
    checked_at: str
    base_model_revision: str | None = None
