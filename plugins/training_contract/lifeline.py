"""The lifeline: how a trainer that runs as a local process learns that whoever started it is gone.

The starter puts its own identity into the environment; the trainer's parent watches it. A parent-death signal would not
do: it is bound to the thread that started the process, and a wrapper such as ``uv run`` between the two swallows it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

LIFELINE_VARIABLE = "PEFT_TRAINER_LIFELINE"
"""Environment variable: the process to die with, as ``ProcessIdentity`` writes itself. Absent: die with nobody."""

_STATE, _START_TICKS = 0, 19
_DEAD_STATES = ("Z", "X")


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A process on this machine, told apart from a later one with the same number.

    Attributes:
        process_id: The kernel's number; it is used again after the process's end.
        start_ticks: When the process started, in clock ticks since boot.
    """

    process_id: int
    start_ticks: int

    @classmethod
    def of(cls, process_id: int) -> ProcessIdentity:
        """Identify a running process.

        Raises:
            ProcessLookupError: There is none with this number, or it has ended.
        """
        fields = _stat_fields(process_id)
        if fields is None or fields[_STATE] in _DEAD_STATES:
            raise ProcessLookupError(f"process {process_id} is not running")
        return cls(process_id, int(fields[_START_TICKS]))

    @classmethod
    def parse(cls, text: str) -> ProcessIdentity:
        """Read an identity back from its text.

        Raises:
            ValueError: The text is not of the form ``PROCESS_ID:START_TICKS``.
        """
        process_id, separator, start_ticks = text.partition(":")
        if not separator or not process_id.isdecimal() or not start_ticks.isdecimal():
            raise ValueError(f"{text[:80]!r} is not a process identity; expected PROCESS_ID:START_TICKS")
        return cls(int(process_id), int(start_ticks))

    def __str__(self) -> str:
        return f"{self.process_id}:{self.start_ticks}"

    @property
    def is_alive(self) -> bool:
        """Whether this very process still runs; one that ended and was not waited for does not."""
        try:
            return ProcessIdentity.of(self.process_id) == self
        except ProcessLookupError:
            return False


def lifeline_from(environment: Mapping[str, str]) -> ProcessIdentity | None:
    """Return the process to die with, if the environment names one.

    Raises:
        ValueError: The variable is there and is not an identity.
    """
    text = environment.get(LIFELINE_VARIABLE, "")
    return ProcessIdentity.parse(text) if text else None


def own_identity() -> ProcessIdentity:
    """Return the identity of the calling process."""
    return ProcessIdentity.of(os.getpid())


def _stat_fields(process_id: int) -> list[str] | None:
    try:
        stat = Path(f"/proc/{process_id}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The second field is the command in parentheses and may hold spaces and parentheses itself.
    return stat.rpartition(")")[2].split()
