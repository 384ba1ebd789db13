"""Progress is honest: it never goes back, and it guesses only from what it has measured."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_trainer.progress import Progress
from training_contract.events import Phase


class Clock:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def in_training(clock: Clock, *, global_step: int, max_steps: int, base_evaluation_seconds: float = 20.0) -> Progress:
    progress = Progress(clock=clock)
    progress.enter(Phase.LOADING_MODEL)
    clock.seconds += 5
    progress.enter(Phase.EVALUATING_BASE)
    clock.seconds += base_evaluation_seconds
    progress.enter(Phase.TRAINING)
    progress.begin_steps(global_step=global_step, max_steps=max_steps)
    return progress


def take_steps(progress: Progress, clock: Clock, count: int, *, seconds: float, first_seconds: float = 30.0) -> None:
    for number in range(count):
        clock.seconds += first_seconds if number == 0 else seconds
        progress.finish_step(progress.global_step + 1)


def test_nothing_is_guessed_before_there_is_a_measurement() -> None:
    clock = Clock()
    progress = Progress(clock=clock)
    assert progress.estimated_remaining_seconds is None
    progress = in_training(clock, global_step=0, max_steps=100)
    assert progress.estimated_remaining_seconds is None
    take_steps(progress, clock, 4, seconds=2.0)
    assert progress.estimated_remaining_seconds is None
    take_steps(progress, clock, 1, seconds=2.0, first_seconds=2.0)
    assert progress.estimated_remaining_seconds is not None


@pytest.mark.parametrize("resumed_at", [0, 500, 900], ids=lambda step: f"from-step-{step}")
def test_the_estimate_is_within_a_fifth_of_the_truth_after_ten_steps_wherever_it_resumed(resumed_at: int) -> None:
    clock = Clock()
    progress = in_training(clock, global_step=resumed_at, max_steps=1000)
    take_steps(progress, clock, 10, seconds=2.0)
    truth = (1000 - resumed_at - 10) * 2.0 + 20.0
    assert progress.estimated_remaining_seconds == pytest.approx(truth, rel=0.2)


def test_the_estimate_counts_down_through_the_last_evaluation_and_never_below_zero() -> None:
    clock = Clock()
    progress = in_training(clock, global_step=0, max_steps=10, base_evaluation_seconds=8.0)
    take_steps(progress, clock, 10, seconds=1.0)
    progress.enter(Phase.EVALUATING_ADAPTER)
    assert progress.estimated_remaining_seconds == pytest.approx(8.0)
    clock.seconds += 3
    assert progress.estimated_remaining_seconds == pytest.approx(5.0)
    clock.seconds += 60
    assert progress.estimated_remaining_seconds == 0.0
    progress.enter(Phase.SAVING)
    assert progress.estimated_remaining_seconds == 0.0


def test_a_resumed_run_begins_where_it_left_off() -> None:
    progress = in_training(Clock(), global_step=900, max_steps=1000)
    assert progress.percentage == pytest.approx(10 + 0.9 * 82)


@given(fractions=st.lists(st.floats(min_value=-1, max_value=2, allow_nan=False), max_size=20))
def test_the_percentage_never_goes_back_and_stays_a_percentage(fractions: list[float]) -> None:
    progress = Progress(clock=Clock())
    seen = [progress.percentage]
    for phase in Phase:
        progress.enter(phase)
        for fraction in fractions:
            progress.advance(fraction)
            seen.append(progress.percentage)
    assert seen == sorted(seen)
    assert seen[0] == 0
    assert seen[-1] <= 100


def test_reports_are_due_about_once_a_second() -> None:
    clock = Clock()
    progress = Progress(clock=clock)
    due = 0
    for _ in range(100):
        clock.seconds += 0.1
        due += progress.is_report_due()
    assert 9 <= due <= 11
