"""The events file: the writer's promises, and a reader that no bytes can upset."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training_contract.events import (
    MAX_LINE_BYTES,
    Ending,
    Event,
    EventReader,
    EventWriter,
    Finished,
    Phase,
    PhaseStarted,
    Progress,
    Started,
    Warned,
    last_terminal_event,
)

GOLDEN = Path(__file__).parent / "golden" / "events.jsonl"
NOW = datetime(2026, 11, 11, 2, 1, tzinfo=UTC)
STORY: tuple[Event, ...] = (
    Started(training_run_id="0123456789abcdef", process_id=7, versions={"torch": "2.13.0"}),
    PhaseStarted(phase=Phase.TRAINING),
    Progress(
        phase=Phase.TRAINING,
        progress_percentage=40.0,
        estimated_remaining_seconds=90.5,
        global_step=40,
        max_steps=100,
        metrics={"loss": 2.5},
    ),
    Warned(code="rows_too_long", message="2 rows were left out"),
    Finished(ending=Ending.SUCCEEDED, exit_code=0),
)


def write_story(path: Path, events: tuple[Event, ...] = STORY) -> None:
    writer = EventWriter(path, now=lambda: NOW)
    for event in events:
        writer.write(event)
    writer.close()


def read_all(path: Path) -> list[Event]:
    return [read.event for read in EventReader(path).read_new()]


def line(**changes: object) -> bytes:
    body = {
        "contract_version": "1.0",
        "sequence": 1,
        "at": "2026-11-11T02:01:00+00:00",
        "type": "phase",
        "phase": "training",
    }
    return json.dumps({**body, **changes}).encode() + b"\n"


def test_the_golden_file_reads_as_the_story() -> None:
    assert read_all(GOLDEN) == list(STORY)


def test_the_story_is_written_as_the_golden_file(tmp_path: Path) -> None:
    write_story(tmp_path / "events.jsonl")

    assert (tmp_path / "events.jsonl").read_bytes() == GOLDEN.read_bytes()


def test_nothing_is_written_after_the_terminal_event(tmp_path: Path) -> None:
    writer = EventWriter(tmp_path / "events.jsonl")
    writer.write(Finished(ending=Ending.FAILED, exit_code=30))

    with pytest.raises(RuntimeError, match="after the terminal event"):
        writer.write(PhaseStarted(phase=Phase.SAVING))
    writer.close()


def test_an_oversized_event_is_refused_and_the_next_one_still_counts(tmp_path: Path) -> None:
    writer = EventWriter(tmp_path / "events.jsonl")
    with pytest.raises(ValueError, match="bytes"):
        writer.write(Warned(code="x", message="m" * MAX_LINE_BYTES))
    writer.write(PhaseStarted(phase=Phase.SAVING))
    writer.close()

    assert [read.sequence for read in EventReader(tmp_path / "events.jsonl").read_new()] == [1]


def test_the_reader_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    reader = EventReader(path)
    writer = EventWriter(path)
    seen = list(reader.read_new())
    for event in STORY:
        writer.write(event)
        seen += reader.read_new()
    writer.close()

    assert [read.event for read in seen] == list(STORY)
    assert list(reader.read_new()) == []


def test_a_half_written_line_waits_for_its_rest(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    whole = GOLDEN.read_bytes()
    reader = EventReader(path)
    seen = []
    for end in range(0, len(whole) + 1, 7):
        path.write_bytes(whole[:end])
        seen += [read.event for read in reader.read_new()]
    path.write_bytes(whole)
    seen += [read.event for read in reader.read_new()]

    assert seen == list(STORY)
    assert reader.rejected_line_count == 0


@pytest.mark.parametrize(
    "bad",
    [
        b"not json\n",
        b'{"type": "phase"\n',
        b"[1]\n",
        b"null\n",
        b"\xff\xfe\n",
        b"[" * 50_000 + b"\n",
        b"x" * (MAX_LINE_BYTES + 10) + b"\n",
        b"x" * (3 * MAX_LINE_BYTES) + b"\n",
        line(sequence="1"),
        line(sequence=True),
        line(contract_version="2.0"),
        line(phase="lunch"),
        line(type="progress", phase="training", progress_percentage=120),
        line(type="progress", phase="training", progress_percentage=-1),
        line(type="progress", phase="training", progress_percentage=1, estimated_remaining_seconds=-5),
        line(type="progress", phase="training", progress_percentage=1, metrics={"loss": "low"}),
        line(type="progress", phase="training", progress_percentage=1, metrics={"loss": float("nan")}),
        line(type="progress", phase="training", progress_percentage=1, global_step=-1),
    ],
    ids=lambda value: repr(value[:40]),
)
def test_a_line_that_cannot_be_trusted_is_counted_and_the_next_one_read(tmp_path: Path, bad: bytes) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(bad + line(sequence=2))
    reader = EventReader(path)

    assert [read.event for read in reader.read_new()] == [PhaseStarted(phase=Phase.TRAINING)]
    assert reader.rejected_line_count == 1


def test_a_sequence_that_goes_back_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(line(sequence=5) + line(sequence=5) + line(sequence=4) + line(sequence=6))
    reader = EventReader(path)

    assert [read.sequence for read in reader.read_new()] == [5, 6]
    assert reader.rejected_line_count == 2


def test_events_after_the_terminal_one_are_rejected(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(line(type="finished", ending="succeeded") + line(sequence=2))
    reader = EventReader(path)

    assert len(list(reader.read_new())) == 1
    assert reader.rejected_line_count == 1


def test_an_unknown_type_is_counted_apart(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(line(type="invented_later") + line(sequence=2))
    reader = EventReader(path)

    assert len(list(reader.read_new())) == 1
    assert (reader.unknown_type_count, reader.rejected_line_count) == (1, 0)


def test_the_terminal_event_is_found_and_its_absence_too(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    assert last_terminal_event(path) is None
    write_story(path, STORY[:-1])
    assert last_terminal_event(path) is None
    assert last_terminal_event(GOLDEN) == Finished(ending=Ending.SUCCEEDED, exit_code=0)


@given(st.binary(max_size=400))
def test_no_bytes_upset_the_reader(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("events") / "events.jsonl"
    path.write_bytes(content + b"\n" + line(sequence=10**9))

    assert [read.sequence for read in EventReader(path).read_new()][-1:] == [10**9]
