"""``events.jsonl``: typed progress, one JSON object a line, append only.

A run has one ``started`` event and at most one terminal event (``finished``), always the last. The writer never lets
reporting stop a training; the reader is total: whatever bytes are in the file, it returns the events it can trust and
counts the rest.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar

from training_contract.documents import from_mapping, refuse_constant
from training_contract.errors import ContractError
from training_contract.version import CONTRACT_VERSION

MAX_LINE_BYTES = 64 * 1024
"""A longer line is nobody's event: it is skipped and counted."""


class Phase(StrEnum):
    """What the trainer is doing, in this order."""

    STARTING = "starting"
    LOADING_DATA = "loading_data"
    LOADING_MODEL = "loading_model"
    EVALUATING_BASE = "evaluating_base"
    TRAINING = "training"
    EVALUATING_ADAPTER = "evaluating_adapter"
    SAVING = "saving"


class Ending(StrEnum):
    """How the trainer says it ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The trainer is up."""

    type: ClassVar[str] = "started"
    training_run_id: str
    process_id: int
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseStarted:
    """A phase begins; the one before it has ended."""

    type: ClassVar[str] = "phase"
    phase: Phase


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far the whole run is.

    Attributes:
        phase: The current phase.
        progress_percentage: Of the whole run, 0 to 100; never goes back.
        estimated_remaining_seconds: Until the end of the whole run; ``None`` until a measurement tells.
        global_step: Optimizer steps done.
        max_steps: Optimizer steps to do.
        metrics: Numbers by name, for example ``loss``, ``learning_rate``, ``tokens_per_second``, ``memory_bytes``.
    """

    type: ClassVar[str] = "progress"
    phase: Phase
    progress_percentage: float
    estimated_remaining_seconds: float | None = None
    global_step: int = 0
    max_steps: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned:
    """Something that does not stop the run and that people should know."""

    type: ClassVar[str] = "warning"
    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The terminal event; nothing comes after it."""

    type: ClassVar[str] = "finished"
    ending: Ending
    exit_code: int = 0


Event = Started | PhaseStarted | Progress | Warned | Finished
_KINDS: Mapping[str, type[Event]] = {
    Started.type: Started,
    PhaseStarted.type: PhaseStarted,
    Progress.type: Progress,
    Warned.type: Warned,
    Finished.type: Finished,
}


@dataclass(frozen=True, slots=True)
class ReadEvent:
    """An event as it stands in the file: what, which one, when."""

    sequence: int
    at: str
    event: Event


def utc_now() -> datetime:
    """Return the time in UTC."""
    return datetime.now(UTC)


class EventWriter:
    """Appends events to a file, numbered, one line at a time."""

    def __init__(self, path: Path, *, now: Callable[[], datetime] = utc_now) -> None:
        """Open the file for appending.

        Args:
            path: ``events.jsonl`` of the attempt.
            now: Clock, for tests.

        Raises:
            OSError: The file cannot be opened.
        """
        # O_APPEND and one write per line: a killed writer can tear only its own last line.
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o660)
        self._now = now
        self._sequence = 0
        self._finished = False

    def write(self, event: Event) -> None:
        """Append one event.

        Raises:
            RuntimeError: The terminal event was written already.
            ValueError: A number is not finite, or the event is too large.
            OSError: The file system refuses.
        """
        if self._finished:
            raise RuntimeError(f"{event.type!r} after the terminal event")
        body = {
            "contract_version": CONTRACT_VERSION,
            "sequence": self._sequence + 1,
            "at": self._now().astimezone(UTC).isoformat(timespec="milliseconds"),
            "type": event.type,
            **dataclasses.asdict(event),
        }
        line = json.dumps(body, allow_nan=False, separators=(",", ":")).encode("ascii") + b"\n"
        if len(line) > MAX_LINE_BYTES:
            raise ValueError(f"the event {event.type!r} is {len(line)} bytes; {MAX_LINE_BYTES} are allowed")
        if os.write(self._descriptor, line) < len(line):
            raise OSError(errno.ENOSPC, "only a part of an event could be written")
        self._sequence += 1
        if isinstance(event, Finished):
            os.fsync(self._descriptor)
            self._finished = True

    def close(self) -> None:
        """Close the file; may be called again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class EventReader:
    """Follows an events file from where it last stopped.

    Attributes:
        rejected_line_count: Lines not trusted: torn, not JSON, too long, out of order, or after the terminal event.
        unknown_type_count: Well-formed events of a type that this version does not know.
    """

    def __init__(self, path: Path) -> None:
        """Name the file; it need not exist yet."""
        self._path = path
        self._offset = 0
        self._rest = b""
        self._skipping = False
        self._sequence = 0
        self._finished = False
        self.rejected_line_count = 0
        self.unknown_type_count = 0

    def read_new(self) -> Iterator[ReadEvent]:
        """Yield the events that were appended since the last call.

        A last line without a newline is left for the next call: its writer may still be at it.
        """
        try:
            stream = self._path.open("rb")
        except FileNotFoundError:
            return
        with stream:
            stream.seek(self._offset)
            while chunk := stream.read(MAX_LINE_BYTES):
                self._offset += len(chunk)
                *lines, self._rest = (self._rest + chunk).split(b"\n")
                for line in lines:
                    if self._skipping or len(line) > MAX_LINE_BYTES:
                        self._skipping = False
                        self.rejected_line_count += 1
                    elif (event := self._parse(line)) is not None:
                        yield event
                if len(self._rest) > MAX_LINE_BYTES:
                    self._rest, self._skipping = b"", True

    def _parse(self, line: bytes) -> ReadEvent | None:
        try:
            body = json.loads(line.decode("utf-8"), parse_constant=refuse_constant)
            sequence, at = body["sequence"], body["at"]
            kind = body["type"]
            if type(sequence) is not int or not isinstance(at, str) or not isinstance(kind, str):
                raise TypeError("not an event")
            if sequence <= self._sequence or self._finished:
                raise ValueError("out of order")
            if kind not in _KINDS:
                self.unknown_type_count += 1
                self._sequence = sequence
                return None
            event = from_mapping(body, _KINDS[kind], document=f"line {sequence} of {self._path.name}")
            if isinstance(event, Progress) and not _plausible(event):
                raise ValueError("impossible progress")
        except (ContractError, KeyError, TypeError, ValueError, RecursionError):
            self.rejected_line_count += 1
            return None
        self._sequence = sequence
        self._finished = isinstance(event, Finished)
        return ReadEvent(sequence, at[:40], event)


def _plausible(progress: Progress) -> bool:
    remaining = progress.estimated_remaining_seconds
    return (
        0 <= progress.progress_percentage <= 100  # noqa: PLR2004 - per cent
        and (remaining is None or remaining >= 0)
        and 0 <= progress.global_step < 2**53
        and 0 <= progress.max_steps < 2**53
        and all(math.isfinite(value) for value in progress.metrics.values())
    )


def last_terminal_event(path: Path) -> Finished | None:
    """Return the terminal event of a file, if it has one.

    Raises:
        OSError: The file exists and cannot be read.
    """
    ending: Any = None
    for read in EventReader(path).read_new():
        ending = read.event
    return ending if isinstance(ending, Finished) else None
