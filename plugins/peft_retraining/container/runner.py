"""The shape that every runner has, whether the trainer is a container or a local process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from training_contract.locations import AttemptDirectory, RunDirectory


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerReport:
    """What a runner knows of an end that the attempt's directory cannot tell.

    Attributes:
        oom_killed: Whether the engine says that the kernel killed something for memory; ``None``: it does not say.
        error_text: The runner's own words about a trainer that it could not start or lost; empty: nothing to say.
    """

    oom_killed: bool | None = None
    error_text: str = ""


class RunningTrainer(Protocol):
    """A trainer that was started, and may have ended since."""

    @property
    def identity(self) -> str:
        """What finds this very trainer again: a container's id, or a process with its start time."""

    def poll(self) -> int | None:
        """Return its exit code (128+n for signal n), ``None`` while it runs; never waits.

        Raises:
            RetrainingError: The runner cannot tell.
        """

    def stop(self, grace_seconds: float) -> None:
        """Ask it to stop and kill it when it has not ended in time; returns when it has ended, and may be called again.

        May be called from a signal handler.

        Args:
            grace_seconds: How long it may take to end by itself.
        """

    def report(self) -> RunnerReport:
        """Return what the runner knows of its end."""


class Runner(Protocol):
    """What starts trainers."""

    def start(self, run_directory: RunDirectory, attempt: AttemptDirectory) -> RunningTrainer:
        """Start the trainer of a run; returns at once.

        Args:
            run_directory: With spec and snapshot in it.
            attempt: Its directory exists and is empty.

        Raises:
            RetrainingError: It cannot be started.
        """
