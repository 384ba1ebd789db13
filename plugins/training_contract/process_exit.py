"""``process_exit.json``: how the trainer's process ended, as its parent saw it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessExit:
    """The end of a process.

    Attributes:
        exit_code: 0-255; 128+n when a signal ended it.
        signal: The signal's number when one ended it.
        oom_kill_count: Processes killed for memory in our control group during the run; ``None``: unknown.
        peak_memory_bytes: Largest resident memory of the child; ``None``: unknown.
        stop_requested: Whether we were asked to stop (SIGTERM or SIGINT) before it ended.
        stdout_bytes: Bytes printed to stdout, kept or not.
        stderr_bytes: Bytes printed to stderr, kept or not.
        started_at: UTC ISO 8601.
        ended_at: UTC ISO 8601.
    """

    exit_code: int
    started_at: str
    ended_at: str
    signal: int | None = None
    oom_kill_count: int | None = None
    peak_memory_bytes: int | None = None
    stop_requested: bool = False
    stdout_bytes: int = 0
    stderr_bytes: int = 0
