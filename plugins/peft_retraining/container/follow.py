"""Follows a running trainer by its files: events and output.

Rests on the attempt's directory alone, so that a container and a local process are followed in one way, and so that
whoever takes over a running trainer sees all of it, from the first line on.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from enum import StrEnum
from typing import Protocol

from peft_retraining.container.output_lines import LineReader, MeasuredLines
from peft_retraining.container.runner import RunningTrainer
from training_contract.captured_output import HEAD_LIMIT_BYTES
from training_contract.events import EventReader, ReadEvent
from training_contract.locations import AttemptDirectory

FOLLOW_SECONDS = 0.5
"""Pause between two looks at a running trainer."""


class OutputStream(StrEnum):
    """Where a line was printed."""

    STDOUT = "stdout"
    STDERR = "stderr"


class TrainerListener(Protocol):
    """Who is told what a trainer does."""

    def on_event(self, read: ReadEvent) -> None:
        """Take a typed event, each one once and in order."""

    def on_output(self, stream: OutputStream, line: str) -> None:
        """Take a line of output, fit for a task log; some are left out when they are too many, and a line says so."""

    def on_tick(self) -> None:
        """Do what is to be done now and then; called once after each look at the files."""


class AttemptFollower:
    """Tells a listener what is new in an attempt's directory."""

    def __init__(
        self,
        attempt: AttemptDirectory,
        listener: TrainerListener,
        *,
        lines_per_second: float = 20.0,
        burst_lines: int = 500,
        head_limit_bytes: int = HEAD_LIMIT_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin at the beginning of the attempt.

        Args:
            attempt: Its directory.
            listener: Who is told.
            lines_per_second: Lines of each stream at most, on average: Airflow's log takes about a millisecond a line.
            burst_lines: Lines of each stream at once at most.
            head_limit_bytes: How far the streams' files can be followed.
            clock: Seconds, for tests.
        """
        self._listener = listener
        self._events = EventReader(attempt.events_file)
        self._outputs = {
            stream: MeasuredLines(
                LineReader(file, head_limit_bytes=head_limit_bytes),
                file_name=file.name,
                lines_per_second=lines_per_second,
                burst_lines=burst_lines,
                clock=clock,
            )
            for stream, file in ((OutputStream.STDOUT, attempt.stdout_file), (OutputStream.STDERR, attempt.stderr_file))
        }

    def read_new(self) -> None:
        """Tell the listener what is new."""
        self._read_events()
        for stream, lines in self._outputs.items():
            for line in lines.take_new():
                self._listener.on_output(stream, line)
        self._listener.on_tick()

    def read_rest(self) -> None:
        """Tell the listener what is left, when the trainer has ended."""
        self._read_events()
        for stream, lines in self._outputs.items():
            for line in lines.take_rest():
                self._listener.on_output(stream, line)
        self._listener.on_tick()

    def _read_events(self) -> None:
        # Read as a whole first: a file that cannot be read at the moment must not end a healthy training, and an error
        # of the listener's is its own.
        read: list[ReadEvent] = []
        with contextlib.suppress(OSError):
            read.extend(self._events.read_new())
        for event in read:
            self._listener.on_event(event)


def follow(
    running: RunningTrainer,
    follower: AttemptFollower,
    *,
    interval_seconds: float = FOLLOW_SECONDS,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Follow a trainer to its end.

    Args:
        running: The trainer.
        follower: Of its attempt.
        interval_seconds: Pause between two looks.
        sleep: For tests.

    Returns:
        The exit code, as the runner tells it.

    Raises:
        RetrainingError: The runner cannot tell whether the trainer runs.
    """
    while (exit_code := running.poll()) is None:
        follower.read_new()
        sleep(interval_seconds)
    # Asked before the last look: whatever was written before the end is there now.
    follower.read_rest()
    return exit_code
