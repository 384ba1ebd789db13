"""The lines of a captured stream, as they are written, in a measure that a task log can take."""

from __future__ import annotations

import codecs
import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from peft_retraining.container.readable_text import for_the_log, last_state, readable
from training_contract.captured_output import HEAD_LIMIT_BYTES

MAX_LINE_CHARACTERS = 2000
"""Longer lines are clipped."""
LAST_LINES = 50
"""Of the lines that were too many, these last ones are shown after all, at the end: a traceback fits."""
PROGRESS_BAR_SECONDS = 30.0
"""Pause between two looks at a progress bar that no newline has ended."""

_READ_BYTES = 64 * 1024


class LineReader:
    """Reads the complete lines of a growing file from where it last stopped, decoded, clipped and readable.

    Only the stream's first part is read: what lies behind it in the file is rewritten as the stream goes on.
    """

    def __init__(self, path: Path, *, head_limit_bytes: int = HEAD_LIMIT_BYTES) -> None:
        """Name the file; it need not exist yet.

        Args:
            path: The captured stream.
            head_limit_bytes: Where its first part ends.
        """
        self._path = path
        self._head_limit = head_limit_bytes
        self._offset = 0
        # A decoder with memory: a character may be split over two reads.
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._start_line()

    @property
    def is_cut_off(self) -> bool:
        """Whether the first part has been read to its end."""
        return self._offset >= self._head_limit

    def read_new(self) -> Iterator[str]:
        """Yield the lines that were completed since the last call.

        Raises:
            OSError: The file is there and cannot be read.
        """
        try:
            stream = self._path.open("rb")
        except FileNotFoundError:
            return
        with stream:
            stream.seek(self._offset)
            while chunk := stream.read(min(_READ_BYTES, self._head_limit - self._offset)):
                self._offset += len(chunk)
                first, *others = self._decoder.decode(chunk).split("\n")
                self._extend(first)
                for piece in others:
                    yield self._finished_line()
                    self._extend(piece)

    def take_unfinished(self) -> str:
        """Return the last line although no newline ended it; empty when there is none."""
        self._extend(self._decoder.decode(b"", final=True))
        return self._finished_line()

    @property
    def progress_bar(self) -> str:
        """What the unfinished line shows, if it is one that overwrites itself; else empty."""
        return for_the_log(readable(self._line)) if self._overwritten else ""

    def _start_line(self) -> None:
        self._line = ""
        self._clipped_characters = 0
        self._overwritten = False

    def _extend(self, piece: str) -> None:
        if "\r" in piece:
            self._overwritten, self._clipped_characters = True, 0
        line = last_state(self._line + piece)
        self._clipped_characters += max(0, len(line) - MAX_LINE_CHARACTERS)
        self._line = line[:MAX_LINE_CHARACTERS]

    def _finished_line(self) -> str:
        note = f" [... {self._clipped_characters} characters left out ...]" if self._clipped_characters else ""
        line = for_the_log(readable(self._line)) + note
        self._start_line()
        return line


class MeasuredLines:
    """A stream's lines in a measure that a task log can take, with a note where some were too many."""

    def __init__(
        self,
        reader: LineReader,
        *,
        file_name: str,
        lines_per_second: float,
        burst_lines: int,
        clock: Callable[[], float],
    ) -> None:
        """Take the lines of a reader.

        Args:
            reader: Of the captured stream.
            file_name: Where all lines are, for the notes.
            lines_per_second: Shown at most, on average.
            burst_lines: Shown at once at most.
            clock: Seconds.
        """
        self._reader = reader
        self._file_name = file_name
        self._rate = lines_per_second
        self._burst = float(burst_lines)
        self._allowance = float(burst_lines)
        self._clock = clock
        self._refilled_at = clock()
        self._bar_shown_at = clock()
        self._bar = ""
        self._left_out = 0
        self._held_back: deque[str] = deque(maxlen=LAST_LINES)

    def take_new(self) -> Iterator[str]:
        """Yield what there is to show since the last call."""
        now = self._clock()
        self._allowance = min(self._burst, self._allowance + (now - self._refilled_at) * self._rate)
        self._refilled_at = now
        if self._held_back and self._allowance > len(self._held_back):
            yield from self._take_held_back()
        for line in _as_far_as_readable(self._reader.read_new()):
            if self._allowance >= 1:
                if self._left_out:
                    yield self._note(self._left_out)
                    self._left_out = 0
                    self._held_back.clear()
                self._allowance -= 1
                yield line
            else:
                self._left_out += 1
                self._held_back.append(line)
        bar = self._reader.progress_bar
        if bar not in ("", self._bar) and now - self._bar_shown_at >= PROGRESS_BAR_SECONDS:
            self._bar, self._bar_shown_at = bar, now
            yield bar

    def take_rest(self) -> Iterator[str]:
        """Yield the last lines, when no more will be written: those that were held back, and one without a newline."""
        yield from self.take_new()
        yield from self._take_held_back()
        if self._reader.is_cut_off:
            yield f"[... this stream is longer than can be followed; {self._file_name} has its end ...]"
        elif unfinished := self._reader.take_unfinished():
            yield unfinished

    def _take_held_back(self) -> Iterator[str]:
        hidden = self._left_out - len(self._held_back)
        if hidden > 0:
            yield self._note(hidden)
        self._allowance -= len(self._held_back)
        yield from self._held_back
        self._held_back.clear()
        self._left_out = 0

    def _note(self, line_count: int) -> str:
        return f"[... {line_count} lines left out here; {self._file_name} has them ...]"


def _as_far_as_readable(lines: Iterator[str]) -> Iterator[str]:
    # A file that cannot be read at the moment must not end a healthy training; the next round tries again.
    with contextlib.suppress(OSError):
        yield from lines
