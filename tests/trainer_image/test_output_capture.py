from __future__ import annotations

import os
from pathlib import Path

import pytest

from peft_trainer.output_capture import CapturedStream, EngineLogCopy
from training_contract.captured_output import MARKER_BYTES, left_out_bytes, left_out_marker

JOIN_SECONDS = 60.0


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.mark.parametrize("chunk_bytes", [1, 7, 64, 1000])
@pytest.mark.parametrize("total_bytes", [0, 1, 99, 100, 101, 130, 150, 151, 1000])
def test_first_and_last_part_do_not_depend_on_how_the_bytes_arrive(
    tmp_path: Path, chunk_bytes: int, total_bytes: int
) -> None:
    printed = bytes(n % 251 for n in range(total_bytes))
    stream = CapturedStream(tmp_path / "stdout.log", head_limit_bytes=100, tail_limit_bytes=50)

    for start in range(0, total_bytes, chunk_bytes):
        stream.write(printed[start : start + chunk_bytes])
        stream.flush_last_part()
    stream.write_last_part()
    stream.close()

    rest = printed[100:]
    behind = left_out_marker(max(0, len(rest) - 50)) + rest[-50:] if rest else b""
    assert (tmp_path / "stdout.log").read_bytes() == printed[:100] + behind
    assert left_out_bytes(tmp_path / "stdout.log", head_limit_bytes=100) == max(0, total_bytes - 150)
    assert stream.total_bytes == total_bytes


def test_a_full_disk_does_not_stop_the_reading() -> None:
    stream = CapturedStream(Path("/dev/full"))

    stream.write(b"x" * 1000)
    stream.write_last_part()
    stream.close()

    assert stream.total_bytes == 1000


def test_after_a_full_disk_the_last_part_follows_where_the_first_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = CapturedStream(tmp_path / "stdout.log", tail_limit_bytes=10)
    stream.write(b"written while there was room\n")
    with monkeypatch.context() as disk:

        def full(descriptor: int, content: bytes, offset: int) -> int:
            raise OSError(28, "No space left on device")

        disk.setattr(os, "pwrite", full)
        stream.write(b"lost, but for its end\n")
        stream.flush_last_part()

    stream.write_last_part()
    stream.close()

    expected = b"written while there was room\n" + left_out_marker(12) + b"r its end\n"
    assert (tmp_path / "stdout.log").read_bytes() == expected


def test_every_marker_has_the_same_length() -> None:
    assert {len(left_out_marker(count)) for count in (0, 1, 10**12, 10**19)} == {MARKER_BYTES}


def test_a_copy_is_bounded_by_its_rate_and_says_what_it_left_out() -> None:
    clock = Clock()
    reading, writing = os.pipe()
    copy = EngineLogCopy(writing, bytes_per_second=10, limit_bytes=1000, whole_in="stdout.log", clock=clock)

    copy.offer(b"a" * 29 + b"\n")
    copy.offer(b"b" * 29 + b"\n")
    clock.seconds += 3
    copy.offer(b"c" * 29 + b"\n")
    copy.offer(b"d" * 29 + b"\n")
    copy.close(JOIN_SECONDS)
    os.close(writing)

    with os.fdopen(reading, "rb") as copied:
        assert copied.read().decode().split("\n") == [
            "a" * 29,
            "",
            "[... 30 bytes left out, see stdout.log ...]",
            "c" * 29,
            "",
            "[... 30 bytes left out, see stdout.log ...]",
            "",
        ]


def test_a_copy_is_bounded_in_all() -> None:
    clock = Clock()
    reading, writing = os.pipe()
    copy = EngineLogCopy(writing, bytes_per_second=1000, limit_bytes=50, whole_in="stderr.log", clock=clock)

    for _ in range(20):
        clock.seconds += 1000
        copy.offer(b"x" * 19 + b"\n")
    copy.close(JOIN_SECONDS)
    os.close(writing)

    with os.fdopen(reading, "rb") as copied:
        assert copied.read() == (b"x" * 19 + b"\n") * 2 + b"\n[... 360 bytes left out, see stderr.log ...]\n"


def test_a_copy_whose_reader_is_gone_is_given_up() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    copy = EngineLogCopy(writing, bytes_per_second=10**9, limit_bytes=10**9, whole_in="stdout.log")

    for _ in range(100):
        copy.offer(b"x\n")
    copy.close(0.0)
    os.close(writing)
