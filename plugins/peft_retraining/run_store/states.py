"""Where a run, or one try of one of its tasks, is."""

from __future__ import annotations

from enum import StrEnum


class RunState(StrEnum):
    """The state of a run and of an attempt: queued, then running, then one of the terminal states."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        """Whether nothing follows it."""
        return self not in (RunState.QUEUED, RunState.RUNNING)
