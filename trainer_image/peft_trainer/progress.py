"""How far the whole run is and how long it still takes; pure, with the clock injected.

Comes in: which phase began, how much of it is done. Goes out: a percentage that never goes back, and the remaining
seconds once there is a measurement to base them on. The estimate counts the optimizer steps of this session only, so
that it holds after a resume, where elapsed time and step number have nothing to do with each other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final

from training_contract.events import Phase

PHASE_STARTS_AT: Final[Mapping[Phase, float]] = {
    Phase.STARTING: 0.0,
    Phase.LOADING_DATA: 1.0,
    Phase.LOADING_MODEL: 2.0,
    Phase.EVALUATING_BASE: 5.0,
    Phase.TRAINING: 10.0,
    Phase.EVALUATING_ADAPTER: 92.0,
    Phase.SAVING: 99.0,
}
"""Percentage of the whole run at which each phase begins."""

WARM_UP_STEPS: Final = 2
"""Steps of a session that are not measured: caches fill, and the longest rows come first."""
_MEASURED_STEPS: Final = 3
_SECONDS_BETWEEN_REPORTS: Final = 1.0


class Progress:
    """Follows one session of one run."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin in the phase ``starting``.

        Args:
            clock: Seconds from any origin, for tests.
        """
        self._clock = clock
        self._phase_began_at = clock()
        self._fraction = 0.0
        self._base_evaluation_seconds: float | None = None
        self._measured_from: tuple[int, float] | None = None
        self._last_step_at = self._phase_began_at
        self._last_report_at: float | None = None
        self.phase = Phase.STARTING
        self.percentage = 0.0
        self.first_step = 0
        self.global_step = 0
        self.max_steps = 0

    def enter(self, phase: Phase) -> None:
        """Begin a phase; the one before it has ended."""
        now = self._clock()
        if self.phase is Phase.EVALUATING_BASE:
            self._base_evaluation_seconds = now - self._phase_began_at
        self.phase = phase
        self._phase_began_at = now
        self._fraction = 0.0
        self._raise_percentage()

    def advance(self, fraction: float) -> None:
        """Say how much of the current phase is done, 0 to 1."""
        self._fraction = min(max(fraction, 0.0), 1.0)
        self._raise_percentage()

    def begin_steps(self, *, global_step: int, max_steps: int) -> None:
        """Begin the training loop.

        Args:
            global_step: Steps done by earlier sessions; 0 unless it resumes.
            max_steps: Steps of the whole run.
        """
        self.first_step = self.global_step = global_step
        self.max_steps = max_steps
        self._measured_from = None
        self.advance(global_step / max(max_steps, 1))

    def finish_step(self, global_step: int) -> None:
        """Note that an optimizer step is done."""
        self.global_step = global_step
        self._last_step_at = self._clock()
        if self._measured_from is None and global_step - self.first_step >= WARM_UP_STEPS:
            self._measured_from = (global_step, self._last_step_at)
        self.advance(global_step / max(self.max_steps, 1))

    @property
    def seconds_per_step(self) -> float | None:
        """Mean of this session's steps after the warm-up; ``None`` until a few are measured."""
        if self._measured_from is None:
            return None
        step, at = self._measured_from
        measured = self.global_step - step
        return (self._last_step_at - at) / measured if measured >= _MEASURED_STEPS else None

    @property
    def estimated_remaining_seconds(self) -> float | None:
        """Until the end of the whole run; ``None`` until there is a measurement to base it on."""
        after_training = self._base_evaluation_seconds
        if self.phase is Phase.SAVING:
            return 0.0
        if after_training is None:
            return None
        if self.phase is Phase.EVALUATING_ADAPTER:
            return max(0.0, after_training - (self._clock() - self._phase_began_at))
        if self.seconds_per_step is None:
            return None
        return (self.max_steps - self.global_step) * self.seconds_per_step + after_training

    def is_report_due(self) -> bool:
        """Return whether a second has passed since this was last ``True``."""
        now = self._clock()
        due = self._last_report_at is None or now - self._last_report_at >= _SECONDS_BETWEEN_REPORTS
        if due:
            self._last_report_at = now
        return due

    def _raise_percentage(self) -> None:
        starts = list(PHASE_STARTS_AT.values())
        begins_at = PHASE_STARTS_AT[self.phase]
        ends_at = next((start for start in starts if start > begins_at), 100.0)
        self.percentage = max(self.percentage, begins_at + self._fraction * (ends_at - begins_at))
