"""The only writer of events; reporting never stops the training.

Comes in: what the trainer does. Goes out: ``events.jsonl``. A failed write of progress is logged once and forgotten;
the terminal event is written last, once, and as hard as possible.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import Final

from peft_trainer import memory
from peft_trainer.progress import Progress
from training_contract.events import Ending, Event, EventWriter, Finished, Phase, PhaseStarted, Started, Warned
from training_contract.events import Progress as ProgressEvent
from training_contract.exit_codes import ExitCode

logger = logging.getLogger(__name__)

_TERMINAL_ATTEMPTS: Final = 3
_SECONDS_BETWEEN_ATTEMPTS: Final = 0.2


class Reporter:
    """Tells the outside world how the run goes."""

    def __init__(self, events: EventWriter, progress: Progress) -> None:
        """Report to a file.

        Args:
            events: Where the events go.
            progress: Counts how far the run is.
        """
        self._events = events
        self._progress = progress
        self._complained = False
        self._finished = False

    @property
    def phase(self) -> Phase:
        """The current phase."""
        return self._progress.phase

    def start(self, *, training_run_id: str, process_id: int, versions: Mapping[str, str]) -> None:
        """Say that the trainer is up."""
        self._write(Started(training_run_id=training_run_id, process_id=process_id, versions=versions))

    def enter(self, phase: Phase) -> None:
        """Say that a phase begins."""
        self._progress.enter(phase)
        self._write(PhaseStarted(phase=phase))
        self._write_progress({})

    def advance(self, done: int, total: int) -> None:
        """Say how much of the current phase is done."""
        self._progress.advance(done / max(total, 1))
        if self._progress.is_report_due():
            self._write_progress({})

    def begin_steps(self, *, global_step: int, max_steps: int) -> None:
        """Say that the training loop begins, after ``global_step`` steps of earlier sessions."""
        self._progress.begin_steps(global_step=global_step, max_steps=max_steps)
        self._write_progress({})

    def finish_step(self, global_step: int, metrics: Callable[[], Mapping[str, float]]) -> None:
        """Say that an optimizer step is done, at most about once a second.

        Args:
            global_step: Which one.
            metrics: Gives the newest numbers; asked only when they are reported, because it may wait for a GPU.
        """
        self._progress.finish_step(global_step)
        if self._progress.is_report_due() or global_step >= self._progress.max_steps:
            self._write_progress(metrics())

    def warn(self, code: str, message: str) -> None:
        """Say something that does not stop the run and that people should know."""
        logger.warning("%s", message)
        self._write(Warned(code=code, message=message))

    def finish(self, ending: Ending, exit_code: ExitCode) -> None:
        """Write the terminal event; only the first call counts."""
        if self._finished:
            return
        self._finished = True
        for attempt in range(_TERMINAL_ATTEMPTS):
            if attempt:
                time.sleep(_SECONDS_BETWEEN_ATTEMPTS)
            try:
                self._events.write(Finished(ending=ending, exit_code=int(exit_code)))
            except OSError as error:
                logger.error("The terminal event cannot be written (%s).", error.strerror)
            else:
                break
        self._events.close()

    def _write_progress(self, metrics: Mapping[str, float]) -> None:
        everything = {**metrics, **{name: float(value) for name, value in memory.measure().items()}}
        progress = self._progress
        self._write(
            ProgressEvent(
                phase=progress.phase,
                progress_percentage=round(progress.percentage, 2),
                estimated_remaining_seconds=_rounded(progress.estimated_remaining_seconds),
                global_step=progress.global_step,
                max_steps=progress.max_steps,
                metrics={name: value for name, value in everything.items() if math.isfinite(value)},
            )
        )

    def _write(self, event: Event) -> None:
        try:
            self._events.write(event)
        except (OSError, ValueError) as error:
            if not self._complained:
                logger.warning("Progress cannot be reported (%s); the training goes on.", error)
            self._complained = True


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
