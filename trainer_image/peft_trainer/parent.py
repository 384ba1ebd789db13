"""The trainer's parent: starts it, keeps what it prints, and records how it ended.

Comes in: a command and an attempt's directory. Goes out: ``stdout.log``, ``stderr.log``, a ``heartbeat`` and, last,
``process_exit.json``; the same in a container and as a local process, whoever is alive to read it. Standard library
only, so that it outlives whatever the trainer does to its memory and can report a trainer whose packages are missing.

Who dies with whom: the kernel kills the trainer when its parent ends (``child_start``). The parent stops the trainer
when asked (SIGTERM, SIGINT) or when the process named by the lifeline is gone (``training_contract.lifeline``).
"""

from __future__ import annotations

import contextlib
import math
import os
import selectors
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from peft_trainer import child_start
from peft_trainer.child_process import ChildProcess, Ending
from peft_trainer.memory_kills import oom_kill_count
from peft_trainer.output_capture import READ_BYTES, CapturedStream, EngineLogCopy, OutputStream
from training_contract.captured_output import HEAD_LIMIT_BYTES, MARKER_BYTES, TAIL_LIMIT_BYTES
from training_contract.documents import write_document
from training_contract.durable_files import TEMPORARY_PREFIX
from training_contract.lifeline import ProcessIdentity, lifeline_from
from training_contract.locations import AttemptDirectory
from training_contract.process_exit import ProcessExit

_TICK_SECONDS = 0.5
_LAST_READS = 16
_HURRIED_SECONDS = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Supervision:
    """How a trainer is watched over.

    Attributes:
        grace_seconds: Between asking the trainer to stop and killing it. With ``drain_seconds`` it stays below the
            5 seconds that Airflow's supervisor leaves a task.
        drain_seconds: How long output is read after the trainer's end when processes that it left behind hold the
            pipes; how long a slow reader of our own output is waited for.
        heartbeat_seconds: Between two touches of ``heartbeat``.
        head_limit_bytes: First part of each stream that is kept.
        tail_limit_bytes: Last part of each stream that is kept.
        copy_bytes_per_second: Copied of each stream to our own, on average.
        copy_limit_bytes: Copied of each stream to our own, in all.
    """

    grace_seconds: float = 3.0
    drain_seconds: float = 1.0
    heartbeat_seconds: float = 5.0
    head_limit_bytes: int = HEAD_LIMIT_BYTES
    tail_limit_bytes: int = TAIL_LIMIT_BYTES
    copy_bytes_per_second: int = 64 * 1024
    copy_limit_bytes: int = 16 * 1024 * 1024


def supervise(
    child_command: Sequence[str],
    attempt: AttemptDirectory,
    *,
    environment: Mapping[str, str] | None = None,
    lifeline: ProcessIdentity | None = None,
    supervision: Supervision | None = None,
) -> int:
    """Run a command to its end and leave its evidence in the attempt's directory.

    Call it in the main thread: it handles SIGTERM, SIGINT and SIGCHLD while it runs.

    Args:
        child_command: The program and its arguments.
        attempt: Where the evidence goes; the directory exists.
        environment: The child's; ``None``: ours.
        lifeline: Stop when this process is gone; ``None``: as our environment's ``LIFELINE_VARIABLE`` says.
        supervision: Bounds and times.

    Returns:
        The exit code to end with: the child's, 128+n when signal n ended it, 126 or 127 when it could not be started.

    Raises:
        ValueError: The lifeline in the environment cannot be read, or this is not the main thread.
    """
    supervision = supervision or Supervision()
    started_at = _utc_now()
    kills_before = oom_kill_count()
    with _StopRequests(lifeline or lifeline_from(os.environ)) as stop:
        with _reserved_space(attempt.root, supervision):
            stdout = _stream(attempt.stdout_file, 1, supervision)
            stderr = _stream(attempt.stderr_file, 2, supervision)
            ending = _run(
                child_command,
                environment,
                streams=(stdout, stderr),
                stop=stop,
                heartbeat=attempt.heartbeat_file,
                supervision=supervision,
            )
        for stream in (stdout, stderr):
            stream.kept.write_last_part()
        kills_after = oom_kill_count()
        exit_record = ProcessExit(
            exit_code=ending.exit_code,
            signal=ending.signal,
            oom_kill_count=None if kills_before is None or kills_after is None else kills_after - kills_before,
            peak_memory_bytes=ending.peak_memory_bytes,
            stop_requested=stop.requested,
            stdout_bytes=stdout.kept.total_bytes,
            stderr_bytes=stderr.kept.total_bytes,
            started_at=started_at,
            ended_at=_utc_now(),
        )
        # Before the streams are closed: neither a slow disk nor a slow reader may cost us the record.
        _record(attempt.process_exit_file, exit_record)
        for stream in (stdout, stderr):
            stream.close(_HURRIED_SECONDS if stop.requested else supervision.drain_seconds)
    return ending.exit_code


class _StopRequests:
    """Notes whether the trainer is to stop, and wakes a selector for that and for a child's end."""

    def __init__(self, lifeline: ProcessIdentity | None) -> None:
        self._lifeline = lifeline
        self.requested = False

    def __enter__(self) -> Self:
        self.descriptor, self._wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._old_wakeup = signal.set_wakeup_fd(self._wakeup, warn_on_full_buffer=False)
        self._old = {
            number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
        }
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._old_wakeup)
        os.close(self.descriptor)
        os.close(self._wakeup)

    def clear_wakeup(self) -> None:
        """Take what woke the selector."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.descriptor, READ_BYTES)

    def check_lifeline(self) -> None:
        """Ask for a stop when the process to die with is gone."""
        if self._lifeline is not None and not self._lifeline.is_alive:
            self.requested = True

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number != signal.SIGCHLD:
            self.requested = True


def _stream(file: Path, descriptor: int, supervision: Supervision) -> OutputStream:
    kept = CapturedStream(
        file, head_limit_bytes=supervision.head_limit_bytes, tail_limit_bytes=supervision.tail_limit_bytes
    )
    copy = EngineLogCopy(
        descriptor,
        bytes_per_second=supervision.copy_bytes_per_second,
        limit_bytes=supervision.copy_limit_bytes,
        whole_in=file.name,
    )
    return OutputStream(kept, copy)


def _run(
    command: Sequence[str],
    environment: Mapping[str, str] | None,
    *,
    streams: tuple[OutputStream, OutputStream],
    stop: _StopRequests,
    heartbeat: Path,
    supervision: Supervision,
) -> Ending:
    try:
        child = ChildProcess(command, environment)
    except (OSError, ValueError) as error:
        streams[1].say(f"The trainer cannot be started: {error}")
        return Ending(exit_code=child_start.CANNOT_EXECUTE)
    with selectors.DefaultSelector() as selector:
        selector.register(stop.descriptor, selectors.EVENT_READ)
        for pipe, stream in zip(child.take_pipes(), streams, strict=True):
            selector.register(pipe, selectors.EVENT_READ, stream)
        _watch(child, selector, stop, heartbeat, supervision)
        selector.unregister(stop.descriptor)
        _drain(child, selector, supervision.drain_seconds)
    return child.reap()


def _watch(
    child: ChildProcess,
    selector: selectors.BaseSelector,
    stop: _StopRequests,
    heartbeat: Path,
    supervision: Supervision,
) -> None:
    """Attend to the child until it has ended: read, beat, stop, kill."""
    next_tick = next_beat = 0.0
    kill_at = math.inf
    while not child.has_ended:
        now = time.monotonic()
        if now >= next_beat:
            next_beat = now + supervision.heartbeat_seconds
            _touch(heartbeat)
        if now >= next_tick:
            next_tick = now + _TICK_SECONDS
            stop.check_lifeline()
            for stream in _streams_in(selector):
                stream.kept.flush_last_part()
        if stop.requested and kill_at == math.inf:
            kill_at = now + supervision.grace_seconds
            child.ask_to_stop()
        if now >= kill_at:
            child.kill_group()
            kill_at = now + _TICK_SECONDS
        for key, _ in selector.select(max(0.0, min(next_tick, kill_at) - now)):
            if key.data is None:
                stop.clear_wakeup()
            else:
                _read(selector, key)


def _drain(child: ChildProcess, selector: selectors.BaseSelector, drain_seconds: float) -> None:
    """Read what is left in the pipes; processes that the child left behind and that hold them are killed."""
    deadline = time.monotonic() + drain_seconds
    while any(_streams_in(selector)) and (left := deadline - time.monotonic()) > 0:
        for key, _ in selector.select(left):
            _read(selector, key)
    child.kill_group()
    for _ in range(_LAST_READS):
        for key, _ in selector.select(0):
            _read(selector, key)


def _read(selector: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
    if not key.data.read_from(key.fd):
        selector.unregister(key.fd)


def _streams_in(selector: selectors.BaseSelector) -> Iterator[OutputStream]:
    for key in selector.get_map().values():
        if isinstance(key.data, OutputStream):
            yield key.data


@contextlib.contextmanager
def _reserved_space(directory: Path, supervision: Supervision) -> Iterator[None]:
    """Put space aside, so that the end can be told when the run has filled the disk."""
    reserve = directory / f"{TEMPORARY_PREFIX}reserve"
    with contextlib.suppress(OSError):
        descriptor = os.open(reserve, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o660)
        try:
            os.posix_fallocate(descriptor, 0, 2 * (supervision.tail_limit_bytes + MARKER_BYTES) + READ_BYTES)
        finally:
            os.close(descriptor)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            reserve.unlink()


def _record(file: Path, ending: ProcessExit) -> None:
    try:
        write_document(file, ending)
    except OSError as error:
        message = f"{file} cannot be written ({error.strerror}); the trainer ended with exit code {ending.exit_code}\n"
        with contextlib.suppress(OSError):
            os.write(2, message.encode("utf-8", "backslashreplace"))


def _touch(file: Path) -> None:
    with contextlib.suppress(OSError):
        file.touch(0o660)


def _utc_now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
