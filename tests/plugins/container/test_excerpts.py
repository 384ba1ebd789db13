from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from peft_retraining.container.excerpts import excerpt_of, read_end, read_excerpt
from peft_retraining.container.readable_text import readable
from peft_retraining.outcome.evidence import StreamExcerpt
from training_contract.captured_output import left_out_marker

LIMIT = 50

lines = st.lists(st.one_of(st.text(), st.binary().map(lambda b: b.decode("utf-8", "surrogateescape"))), max_size=30)
printed_bytes = lines.map(
    lambda items: "\n".join(items).encode("utf-8", "surrogateescape") if _encodable(items) else b"x"
)


def _encodable(items: list[str]) -> bool:
    try:
        "\n".join(items).encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


@given(printed_bytes)
@example("€".encode() * 200)
@example(b"\xff" * 200)
@example(b"\x00" * 200)
@settings(deadline=None)
def test_an_excerpt_is_bounded_valid_and_honest(content: bytes) -> None:
    excerpt = excerpt_of(content, limit_characters=LIMIT)

    text = readable(content.decode("utf-8", "replace"))
    assert len(excerpt.head) <= LIMIT
    assert len(excerpt.tail) <= LIMIT
    assert text.startswith(excerpt.head)
    assert text.endswith(excerpt.tail)
    assert excerpt.total_bytes == len(content)
    (excerpt.head + excerpt.tail).encode("utf-8")
    if excerpt.omitted_characters == 0:
        assert excerpt.head + excerpt.tail == text
    else:
        assert len(text) > 2 * LIMIT


@given(st.text(max_size=2 * LIMIT))
@settings(deadline=None)
def test_what_is_short_is_there_as_a_whole_and_stays_as_it_is(text: str) -> None:
    content = text.encode("utf-8", "replace")
    excerpt = excerpt_of(content, limit_characters=2 * LIMIT)

    whole = excerpt.head + excerpt.tail
    if excerpt.omitted_characters == 0:
        again = excerpt_of(whole.encode(), limit_characters=2 * LIMIT)
        assert again.head + again.tail == whole


@given(st.integers(0, 400_000), st.integers(0, 90))
@settings(deadline=None, max_examples=30)
def test_reading_both_ends_of_a_file_gives_the_same_as_reading_all_of_it(
    tmp_path_factory: pytest.TempPathFactory, length: int, width: int
) -> None:
    line = "é" * width + "\n"
    content = (line * (length // max(1, len(line)) + 1)).encode()[:length]
    path = tmp_path_factory.mktemp("excerpt") / "stdout.log"
    path.write_bytes(content)

    assert read_excerpt(path, limit_characters=LIMIT) == excerpt_of(content, limit_characters=LIMIT)


def test_head_and_tail_consist_of_whole_lines() -> None:
    content = b"".join(b"line %04d\n" % n for n in range(1000))

    excerpt = excerpt_of(content)

    assert excerpt.head.startswith("line 0000\n")
    assert excerpt.head.endswith("\n")
    assert excerpt.tail.startswith("line ")
    assert excerpt.tail.endswith("line 0999\n")
    assert (len(excerpt.head), len(excerpt.tail)) == (2500, 2500)
    assert excerpt.omitted_characters == len(content) - 5000


def test_one_endless_line_is_cut_where_it_must_be() -> None:
    excerpt = excerpt_of(b"a" * 5000 + b"b" * 5000)

    assert (excerpt.head, excerpt.tail) == ("a" * 2500, "b" * 2500)
    assert excerpt.omitted_characters == 5000


def test_a_progress_bar_does_not_crowd_out_the_cause(tmp_path: Path) -> None:
    path = tmp_path / "stderr.log"
    path.write_bytes(b"loading\n" + b"".join(b"\r%5d/50000" % n for n in range(50_000)) + b"\nMemoryError: 42\n")

    excerpt = read_excerpt(path)

    assert excerpt.head.splitlines()[0] == "loading"
    assert len(excerpt.head) < 30
    assert excerpt.tail.splitlines()[-1] == "MemoryError: 42"


def test_characters_are_counted_and_not_their_bytes(tmp_path: Path) -> None:
    path = tmp_path / "stdout.log"
    path.write_text("€" * 100_000)

    excerpt = read_excerpt(path)

    assert (excerpt.total_bytes, excerpt.omitted_characters) == (300_000, 95_000)


def test_what_the_parent_left_out_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "stdout.log"
    path.write_bytes(b"h" * 10_000 + left_out_marker(10**12) + b"t" * 8_000)

    excerpt = read_excerpt(path, head_limit_bytes=10_000)

    assert excerpt.total_bytes == 10**12 + 18_000
    assert excerpt.omitted_characters == excerpt.total_bytes - 5000
    assert set(excerpt.head) == {"h"}
    assert set(excerpt.tail) == {"t"}


def test_what_a_full_disk_swallowed_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "stdout.log"
    path.write_bytes(b"kept\n")

    assert read_excerpt(path, total_bytes=105) == StreamExcerpt(head="kept\n", total_bytes=105, omitted_characters=100)


def test_a_missing_file_is_an_empty_stream(tmp_path: Path) -> None:
    assert read_excerpt(tmp_path / "missing") == StreamExcerpt()
    assert read_end(tmp_path / "missing", 10) == ""


def test_a_character_that_the_window_cuts_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "stderr.log"
    path.write_text("€" * 10, encoding="utf-8")

    assert read_end(path, 8) == "€€"
