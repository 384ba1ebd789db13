"""A training that failed, with everything that is known about it."""

from __future__ import annotations

from typing import Any

from peft_retraining.errors import FailureClass, RetrainingError
from peft_retraining.outcome.evidence import Evidence, StreamExcerpt
from peft_retraining.outcome.verdict import Outcome
from training_contract.locations import AttemptDirectory


class TrainingFailed(RetrainingError):
    """The trainer ended without a result that holds; the cause and the remedy are those of the verdict.

    Its evidence is how the trainer ended, and head and tail of both output streams.
    """

    def __init__(self, outcome: Outcome, evidence: Evidence, attempt: AttemptDirectory) -> None:
        self.failure_class = outcome.failure_class or FailureClass.PLATFORM
        self.retryable = outcome.retryable
        facts: dict[str, Any] = {
            "attempt_directory": attempt.number,
            "exit_code": evidence.exit_code,
            "signal": evidence.signal,
            "oom_killed": evidence.oom_killed,
            "phase": evidence.last_phase.value if evidence.last_phase else None,
            "stderr": _excerpt(evidence.stderr),
            "stdout": _excerpt(evidence.stdout),
        }
        super().__init__(
            outcome.failure_reason, failure_code=outcome.failure_code, remedy=outcome.remedy, evidence=facts
        )


def _excerpt(excerpt: StreamExcerpt) -> dict[str, Any]:
    return {
        "head": excerpt.head,
        "tail": excerpt.tail,
        "total_bytes": excerpt.total_bytes,
        "omitted_characters": excerpt.omitted_characters,
    }
