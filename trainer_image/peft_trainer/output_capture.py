"""Keeps what the trainer prints: all of a normal run's output, the first and the last part of anybody's.

Comes in: chunks of bytes. Goes out: a capped file (laid out as ``training_contract.captured_output`` says) and a
bounded share to a descriptor of ours, where a container engine logs it. Nothing here waits for a reader or fails on a
full disk, and memory does not grow with what is printed.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path

from training_contract.captured_output import HEAD_LIMIT_BYTES, TAIL_LIMIT_BYTES, left_out_marker

READ_BYTES = 64 * 1024
"""Taken from a pipe at once."""

_QUEUED_CHUNKS = 16
_BURST_SECONDS = 4.0


class CapturedStream:
    """One output stream in one capped file.

    Attributes:
        total_bytes: What was printed, kept or not.
    """

    def __init__(
        self, path: Path, *, head_limit_bytes: int = HEAD_LIMIT_BYTES, tail_limit_bytes: int = TAIL_LIMIT_BYTES
    ) -> None:
        """Create the file; when that fails, the stream is still counted and its last part kept in memory.

        Args:
            path: The file; an older one is replaced.
            head_limit_bytes: Bytes of the first part at most.
            tail_limit_bytes: Bytes of the last part at most.
        """
        self._head_limit = head_limit_bytes
        self._tail_limit = tail_limit_bytes
        self._tail = bytearray()
        self._tail_total = 0
        self._tail_changed = False
        self._head_bytes = 0
        self._head_open = True
        self.total_bytes = 0
        try:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o660)
        except OSError:
            self._descriptor = -1

    def write(self, chunk: bytes) -> None:
        """Take what was printed next."""
        self.total_bytes += len(chunk)
        if self._head_open:
            part = chunk[: self._head_limit - self._head_bytes]
            written = self._write_at(self._head_bytes, part)
            self._head_bytes += written
            self._head_open = written == len(part) and self._head_bytes < self._head_limit
            chunk = chunk[written:]
        if chunk:
            self._tail += chunk
            self._tail_total += len(chunk)
            self._tail_changed = True
            # Twice the limit before it is cut: a cut moves the rest, so cutting at each write would be quadratic.
            if len(self._tail) > 2 * self._tail_limit:
                del self._tail[: -self._tail_limit]

    def flush_last_part(self) -> None:
        """Bring the last part in the file up to date, so that it is there even when we are killed next.

        When a full disk ended the first part early, a reader may be following there: then the last part waits for the
        end.
        """
        if self._head_bytes == self._head_limit:
            self.write_last_part()

    def write_last_part(self) -> None:
        """Write the last part behind the first, if more was printed than the first part holds."""
        if self._tail_changed:
            tail = bytes(self._tail[-self._tail_limit :])
            self._write_at(self._head_bytes, left_out_marker(self._tail_total - len(tail)) + tail)
            self._tail_changed = False

    def close(self) -> None:
        """Make the file durable, as far as the disk allows."""
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.fsync(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def _write_at(self, offset: int, content: bytes) -> int:
        written = 0
        with contextlib.suppress(OSError):
            while self._descriptor >= 0 and written < len(content):
                written += os.pwrite(self._descriptor, content[written:], offset + written)
        return written


class EngineLogCopy:
    """Copies a bounded share of a stream to a descriptor, without ever waiting for who reads it."""

    def __init__(
        self,
        descriptor: int,
        *,
        bytes_per_second: int,
        limit_bytes: int,
        whole_in: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start copying.

        Args:
            descriptor: Where to; it is not closed.
            bytes_per_second: Copied at most, on average; a burst may be four times that.
            limit_bytes: Copied at most in all: a container engine keeps its log without bound.
            whole_in: Name of the file that has more, for the note about what was left out.
            clock: Seconds, for tests.
        """
        self._descriptor = descriptor
        self._rate = bytes_per_second
        self._burst = bytes_per_second * _BURST_SECONDS
        self._allowance = self._burst
        self._remaining = limit_bytes
        self._whole_in = whole_in
        self._clock = clock
        self._last_offer = clock()
        self._left_out = 0
        # The thread may wait for a slow reader for ever; the queue is what keeps that from us.
        self._queue: queue.Queue[bytes | None] = queue.Queue(_QUEUED_CHUNKS)
        self._thread = threading.Thread(target=self._copy, name=f"copy of {whole_in}", daemon=True)
        self._thread.start()

    def offer(self, chunk: bytes) -> None:
        """Copy as much of a chunk as the bounds allow; never waits."""
        now = self._clock()
        self._allowance = min(self._burst, self._allowance + (now - self._last_offer) * self._rate)
        self._last_offer = now
        bound = int(min(self._allowance, self._remaining))
        part = chunk if len(chunk) <= bound else chunk[: chunk.rfind(b"\n", 0, bound) + 1]
        if part and self._put(self._note() + part):
            self._allowance -= len(part)
            self._remaining -= len(part)
            self._left_out = len(chunk) - len(part)
        else:
            self._left_out += len(chunk)

    def close(self, timeout_seconds: float) -> None:
        """End the copying; a reader that is too slow loses the rest."""
        if self._left_out:
            self._put(self._note())
        with contextlib.suppress(queue.Full):
            self._queue.put(None, timeout=timeout_seconds)
            self._thread.join(timeout_seconds)

    def _note(self) -> bytes:
        if not self._left_out:
            return b""
        return f"\n[... {self._left_out} bytes left out, see {self._whole_in} ...]\n".encode()

    def _put(self, content: bytes) -> bool:
        try:
            self._queue.put_nowait(content)
        except queue.Full:
            return False
        return True

    def _copy(self) -> None:
        with contextlib.suppress(OSError):
            while (content := self._queue.get()) is not None:
                while content:
                    content = content[os.write(self._descriptor, content) :]


class OutputStream:
    """One of the child's output streams: from its pipe to the capped file and to our own stream."""

    def __init__(self, kept: CapturedStream, copy: EngineLogCopy) -> None:
        self.kept = kept
        self._copy = copy

    def read_from(self, pipe: int) -> bool:
        """Take what is in the pipe now; return whether more may come."""
        try:
            chunk = os.read(pipe, READ_BYTES)
        except BlockingIOError:
            return True
        self.kept.write(chunk)
        self._copy.offer(chunk)
        return bool(chunk)

    def say(self, line: str) -> None:
        """Put a line of our own into the stream."""
        content = f"{line}\n".encode("utf-8", "backslashreplace")
        self.kept.write(content)
        self._copy.offer(content)

    def close(self, timeout_seconds: float) -> None:
        """Make the file durable and end the copying."""
        self.kept.close()
        self._copy.close(timeout_seconds)
