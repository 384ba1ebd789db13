from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peft_retraining.container.output_lines import MAX_LINE_CHARACTERS, LineReader, MeasuredLines


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "stdout.log"


def append(file: Path, content: bytes) -> None:
    with file.open("ab") as stream:
        stream.write(content)


def measured(file: Path, clock: Clock, **bounds: float) -> MeasuredLines:
    rate, burst = bounds.get("lines_per_second", 1.0), int(bounds.get("burst_lines", 10))
    return MeasuredLines(LineReader(file), file_name=file.name, lines_per_second=rate, burst_lines=burst, clock=clock)


def test_a_line_is_read_when_its_newline_is_there(file: Path) -> None:
    reader = LineReader(file)
    assert list(reader.read_new()) == []
    append(file, b"one\ntw")
    assert list(reader.read_new()) == ["one"]
    append(file, b"o\n")
    assert list(reader.read_new()) == ["two"]
    append(file, b"three")
    assert list(reader.read_new()) == []
    assert reader.take_unfinished() == "three"


@given(st.lists(st.text(st.characters(exclude_characters="\r")), max_size=8), st.lists(st.integers(1, 20), max_size=30))
@settings(deadline=None)
def test_lines_do_not_depend_on_how_the_bytes_arrive(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], sizes: list[int]
) -> None:
    content = "".join(text + "\n" for text in texts).encode("utf-8", "replace")
    whole, in_pieces = (tmp_path_factory.mktemp("lines") / "stdout.log" for _ in range(2))
    append(whole, content)
    reader = LineReader(in_pieces)
    read: list[str] = []
    for size in [*sizes, len(content)]:
        append(in_pieces, content[:size])
        content = content[size:]
        read += reader.read_new()

    assert read == list(LineReader(whole).read_new())
    assert "\ufffd" not in "".join(read)


def test_a_character_split_over_two_writes_is_whole(file: Path) -> None:
    reader = LineReader(file)
    append(file, "€".encode()[:2])
    assert list(reader.read_new()) == []
    append(file, "€".encode()[2:] + b"\n")
    assert list(reader.read_new()) == ["€"]


def test_a_line_of_many_megabytes_is_clipped_and_counted(file: Path) -> None:
    for _ in range(40):
        append(file, b"x" * 1_000_000)
    append(file, b"\nnext\n")

    first, second = LineReader(file).read_new()

    assert first == "x" * MAX_LINE_CHARACTERS + f" [... {40_000_000 - MAX_LINE_CHARACTERS} characters left out ...]"
    assert second == "next"


def test_what_lies_behind_the_first_part_is_not_followed(file: Path) -> None:
    append(file, b"one\ntwo\nrewritten as it goes on\n")
    reader = LineReader(file, head_limit_bytes=8)

    assert list(reader.read_new()) == ["one", "two"]
    assert reader.is_cut_off


def test_a_progress_bar_is_shown_now_and_then_and_its_last_state_at_the_end(file: Path) -> None:
    clock = Clock()
    output = measured(file, clock)
    append(file, b"\r 10%")
    assert list(output.take_new()) == []
    clock.seconds = 31
    append(file, b"\r 20%")
    assert list(output.take_new()) == [" 20%"]
    append(file, b"\r 30%")
    clock.seconds = 32
    assert list(output.take_new()) == []
    append(file, b"\r100%\n")
    assert list(output.take_new()) == ["100%"]


def test_too_many_lines_are_left_out_with_a_note_and_the_last_ones_are_shown_at_the_end(file: Path) -> None:
    output = measured(file, Clock(), burst_lines=3)
    append(file, b"".join(b"%d\n" % n for n in range(100)))

    assert list(output.take_new()) == ["0", "1", "2"]
    assert list(output.take_rest()) == [
        "[... 47 lines left out here; stdout.log has them ...]",
        *(str(n) for n in range(50, 100)),
    ]


def test_held_back_lines_are_shown_when_the_flood_is_over(file: Path) -> None:
    clock = Clock()
    output = measured(file, clock, burst_lines=3)
    append(file, b"0\n1\n2\n3\n4\n")
    assert list(output.take_new()) == ["0", "1", "2"]
    clock.seconds = 60
    append(file, b"5\n")
    assert list(output.take_new()) == ["3", "4", "5"]


def test_a_flood_that_goes_on_is_shown_at_its_rate(file: Path) -> None:
    clock = Clock()
    output = measured(file, clock, burst_lines=2, lines_per_second=2)
    shown: list[str] = []
    for _ in range(10):
        append(file, b"x\n" * 100)
        shown += output.take_new()
        clock.seconds += 1

    assert shown.count("x") == 20
    assert shown[2] == "[... 98 lines left out here; stdout.log has them ...]"


def test_the_end_of_what_can_be_followed_is_told(file: Path) -> None:
    append(file, b"a" * 20)
    output = MeasuredLines(
        LineReader(file, head_limit_bytes=10), file_name="stdout.log", lines_per_second=1, burst_lines=9, clock=Clock()
    )

    assert list(output.take_rest()) == ["[... this stream is longer than can be followed; stdout.log has its end ...]"]


def test_a_file_that_cannot_be_read_for_a_while_is_read_later(file: Path) -> None:
    file.mkdir()
    output = measured(file, Clock())
    assert list(output.take_new()) == []
    file.rmdir()
    append(file, b"there\n")
    assert list(output.take_new()) == ["there"]
