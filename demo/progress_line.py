"""One line that says how far a run is: rewritten on a terminal, a new line for each change elsewhere."""

from __future__ import annotations

import shutil
from typing import TextIO

from peft_retraining.run_store.records import TrainingRun


class ProgressLine:
    """Shows a run's state, phase, per cent and remaining time."""

    def __init__(self, stream: TextIO) -> None:
        """Write to ``stream``."""
        self._stream = stream
        self._rewrites = stream.isatty()
        self._shown = ""

    def show(self, run: TrainingRun | None) -> None:
        """Show where a run is; ``None`` before anything is recorded."""
        line = describe(run)
        if line == self._shown:
            return
        self._shown = line
        if self._rewrites:
            width = shutil.get_terminal_size().columns - 1
            self._stream.write(f"\r\x1b[K{line[:width]}")
        else:
            self._stream.write(f"{line}\n")
        self._stream.flush()

    def close(self) -> None:
        """End the line."""
        if self._rewrites and self._shown:
            self._stream.write("\n")


def describe(run: TrainingRun | None) -> str:
    """Return the line for a run."""
    if run is None:
        return "  waiting for the scheduler"
    if run.progress_percentage is None or run.state.is_terminal:
        return f"  {run.state}"
    remaining = run.estimated_remaining_seconds
    eta = "" if remaining is None else f", about {_duration(remaining)} left"
    return f"  {run.state}: {(run.phase or '').replace('_', ' ')} {run.progress_percentage:3.0f} %{eta}"


def _duration(seconds: float) -> str:
    # Rounded, so that elsewhere than on a terminal not every second is a line.
    if seconds >= 90:
        return f"{round(seconds / 60)} min"
    return f"{max(5, round(seconds / 5) * 5)} s"
