"""``failure.json``: why the trainer failed, written by the trainer when it still can."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

MAX_MESSAGE_CHARACTERS = 4000
"""Messages are cut here: some libraries put whole tensors into theirs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExceptionEntry:
    """One link of an exception chain."""

    type: str
    message: str
    traceback: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureReport:
    """What the trainer knows about its own failure.

    Attributes:
        exit_code: The exit code that follows.
        failure_code: The cause, as in ``ExitCode.failure_code``.
        message: What was found, what was expected.
        remedy: What to do about it.
        phase: The phase it happened in.
        exceptions: The chain, root cause last.
        memory: Memory at that moment in bytes, by name.
        failed_at: UTC ISO 8601.
    """

    exit_code: int
    failure_code: str
    message: str
    remedy: str
    phase: str
    failed_at: str
    exceptions: tuple[ExceptionEntry, ...] = ()
    memory: Mapping[str, int] = field(default_factory=dict)
