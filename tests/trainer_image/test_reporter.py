"""Reporting never stops a training, and the end is told once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from peft_trainer.progress import Progress
from peft_trainer.reporter import Reporter
from training_contract.events import (
    Ending,
    Event,
    EventReader,
    EventWriter,
    Finished,
    Phase,
    PhaseStarted,
    Started,
    Warned,
)
from training_contract.events import Progress as ProgressEvent
from training_contract.exit_codes import ExitCode


def events_in(file: Path) -> list[Event]:
    return [read.event for read in EventReader(file).read_new()]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where events go."""
    return tmp_path / "events.jsonl"


def reporter_to(file: Path) -> Reporter:
    seconds = iter(range(1000))
    return Reporter(EventWriter(file), Progress(clock=lambda: float(next(seconds))))


def test_what_happens_is_written_in_order(file: Path) -> None:
    reporter = reporter_to(file)
    reporter.start(training_run_id="a", process_id=7, versions={"torch": "2"})
    reporter.enter(Phase.TRAINING)
    reporter.warn("ROWS_TOO_LONG", "3 rows are left out")
    reporter.finish(Ending.SUCCEEDED, ExitCode.SUCCESS)
    events = [event for event in events_in(file) if not isinstance(event, ProgressEvent)]
    assert events == [
        Started(training_run_id="a", process_id=7, versions={"torch": "2"}),
        PhaseStarted(phase=Phase.TRAINING),
        Warned(code="ROWS_TOO_LONG", message="3 rows are left out"),
        Finished(ending=Ending.SUCCEEDED),
    ]


def test_numbers_that_are_none_are_left_out(file: Path) -> None:
    reporter = reporter_to(file)
    reporter.enter(Phase.TRAINING)
    reporter.begin_steps(global_step=0, max_steps=10)
    reporter.finish_step(1, lambda: {"loss": float("nan"), "learning_rate": 0.5})
    metrics = [event for event in events_in(file) if isinstance(event, ProgressEvent)][-1].metrics
    assert metrics["learning_rate"] == 0.5
    assert "loss" not in metrics
    assert metrics["peak_memory_bytes"] > 0


def test_the_end_is_told_once(file: Path) -> None:
    reporter = reporter_to(file)
    reporter.finish(Ending.FAILED, ExitCode.DISK_FULL)
    reporter.finish(Ending.SUCCEEDED, ExitCode.SUCCESS)
    assert events_in(file) == [Finished(ending=Ending.FAILED, exit_code=63)]


def test_a_full_disk_is_complained_about_once_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    full = tmp_path / "events.jsonl"
    full.symlink_to("/dev/full")
    reporter = reporter_to(full)
    for phase in Phase:
        reporter.enter(phase)
    assert caplog.text.count("Progress cannot be reported") == 1


def test_the_terminal_event_is_tried_again(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refusals = iter([OSError(28, "No space left on device"), OSError(28, "No space left on device")])
    write = os.write

    def reluctant_write(descriptor: int, content: bytes) -> int:
        if b'"finished"' in content and (refusal := next(refusals, None)):
            raise refusal
        return write(descriptor, content)

    monkeypatch.setattr("training_contract.events.os.write", reluctant_write)
    monkeypatch.setattr("peft_trainer.reporter.time.sleep", lambda seconds: None)
    reporter_to(file).finish(Ending.FAILED, ExitCode.DISK_FULL)
    assert events_in(file) == [Finished(ending=Ending.FAILED, exit_code=63)]
