"""What can go wrong on the Airflow side, told apart by who has to act.

::

    RetrainingError              carries failure_code, failure_class, retryable, remedy
    |-- UserError                 settings, data or model choice must change
    |-- PlatformError             installation, limits, mounts or permissions must change
    `-- InfrastructureError       network, database, host or hardware; a retry may help

These errors know nothing of Airflow; the operators translate them (``recording.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class FailureClass(StrEnum):
    """Who has to act on a failure, in the words of Torch Elastic."""

    USER = "user"
    PLATFORM = "platform"
    INFRA = "infra"


class RetrainingError(Exception):
    """A failure that is understood: it has a code, a cause and a remedy."""

    failure_class: FailureClass = FailureClass.PLATFORM
    retryable: bool = False

    def __init__(
        self, message: str, *, failure_code: str, remedy: str, evidence: Mapping[str, object] | None = None
    ) -> None:
        """Describe the failure.

        Args:
            message: What was found and what was expected, on one line.
            failure_code: Stable name of the cause, lower case with underscores.
            remedy: What to do about it.
            evidence: Facts behind the message, by name, as JSON can hold them; they go into the failure's report.
        """
        self.failure_code = failure_code
        self.remedy = remedy
        self.evidence = dict(evidence or {})
        super().__init__(message)


class UserError(RetrainingError):
    """Settings, data or the choice of model must change; a retry gives the same failure."""

    failure_class = FailureClass.USER


class PlatformError(RetrainingError):
    """The installation, a limit, a mount or a permission must change; a retry gives the same failure."""

    failure_class = FailureClass.PLATFORM


class InfrastructureError(RetrainingError):
    """Network, database, host or hardware failed; a retry may help."""

    failure_class = FailureClass.INFRA
    retryable = True
