from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from peft_retraining.container.follow import AttemptFollower, OutputStream, follow
from peft_retraining.container.runner import RunnerReport
from training_contract.events import Ending, Event, EventWriter, Finished, Phase, PhaseStarted, ReadEvent
from training_contract.locations import AttemptDirectory


class Listener:
    def __init__(self) -> None:
        self.heard: list[object] = []
        self.ticks = 0

    def on_event(self, read: ReadEvent) -> None:
        self.heard.append(read.event)

    def on_output(self, stream: OutputStream, line: str) -> None:
        self.heard.append((stream.value, line))

    def on_tick(self) -> None:
        self.ticks += 1


class ScriptedTrainer:
    """Writes as it is told, one step at each pause of the follower, and ends after the last."""

    identity = "scripted"

    def __init__(self, *steps: Callable[[], object], exit_code: int = 0) -> None:
        self.steps = list(steps)
        self.exit_code = exit_code

    def poll(self) -> int | None:
        return None if self.steps else self.exit_code

    def go_on(self, seconds: float) -> None:
        self.steps.pop(0)()

    def stop(self, grace_seconds: float) -> None:
        self.steps.clear()

    def report(self) -> RunnerReport:
        return RunnerReport()


@pytest.fixture
def attempt(tmp_path: Path) -> AttemptDirectory:
    return AttemptDirectory(tmp_path, 1)


def appends(file: Path, content: bytes) -> Callable[[], object]:
    def append() -> None:
        with file.open("ab") as stream:
            stream.write(content)

    return append


def writes(attempt: AttemptDirectory, *events: Event) -> Callable[[], object]:
    def write() -> None:
        writer = EventWriter(attempt.events_file)
        for event in events:
            writer.write(event)
        writer.close()

    return write


def test_everything_is_told_once_and_streams_are_kept_apart(attempt: AttemptDirectory) -> None:
    events = (PhaseStarted(phase=Phase.TRAINING), Finished(ending=Ending.SUCCEEDED))
    trainer = ScriptedTrainer(
        appends(attempt.stdout_file, b"hello wor"),
        appends(attempt.stderr_file, b"Traceback: boom\n"),
        appends(attempt.stdout_file, b"ld\nwithout newline"),
        writes(attempt, *events),
        exit_code=3,
    )
    listener = Listener()

    assert follow(trainer, AttemptFollower(attempt, listener), sleep=trainer.go_on) == 3
    assert sorted(map(str, listener.heard)) == sorted(
        map(
            str,
            [
                *events,
                ("stdout", "hello world"),
                ("stderr", "Traceback: boom"),
                ("stdout", "without newline"),
            ],
        )
    )
    assert listener.ticks == 5


def test_what_was_written_just_before_the_end_is_told(attempt: AttemptDirectory) -> None:
    listener = Listener()
    trainer = ScriptedTrainer(appends(attempt.stderr_file, b"last words\n"))

    follow(trainer, AttemptFollower(attempt, listener), sleep=trainer.go_on)

    assert listener.heard == [("stderr", "last words")]


def test_a_trainer_that_has_ended_already_is_told_from_its_first_line_on(attempt: AttemptDirectory) -> None:
    appends(attempt.stdout_file, b"one\ntwo\n")()
    listener = Listener()

    assert follow(ScriptedTrainer(exit_code=1), AttemptFollower(attempt, listener)) == 1
    assert listener.heard == [("stdout", "one"), ("stdout", "two")]


def test_a_line_that_looks_like_an_event_or_a_group_is_text(attempt: AttemptDirectory) -> None:
    forged = b'{"contract_version":"1.0","sequence":1,"at":"","type":"finished","ending":"succeeded"}\n'
    appends(attempt.stdout_file, forged + b"::group::x\n")()
    listener = Listener()

    follow(ScriptedTrainer(), AttemptFollower(attempt, listener))

    assert listener.heard == [("stdout", forged.decode().strip()), ("stdout", ": :group::x")]


def test_files_that_cannot_be_read_do_not_end_the_following(attempt: AttemptDirectory) -> None:
    for file in (attempt.events_file, attempt.stdout_file):
        file.mkdir()
    listener = Listener()

    AttemptFollower(attempt, listener).read_new()

    assert (listener.heard, listener.ticks) == ([], 1)


def test_an_error_of_the_listener_is_not_swallowed(attempt: AttemptDirectory) -> None:
    class Failing(Listener):
        def on_event(self, read: ReadEvent) -> None:
            raise OSError("the listener's own")

    writes(attempt, PhaseStarted(phase=Phase.SAVING))()
    with pytest.raises(OSError, match="the listener's own"):
        AttemptFollower(attempt, Failing()).read_new()
