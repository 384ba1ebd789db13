"""The trainer's process as its parent holds it: start, ask to stop, kill, read the end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from peft_trainer import child_start

_SIGNALLED = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a process ended.

    Attributes:
        exit_code: 0-255; 128+n when a signal ended it.
        signal: The signal's number when one ended it.
        peak_memory_bytes: Largest resident memory of it or of a process that it waited for; ``None``: unknown.
    """

    exit_code: int
    signal: int | None = None
    peak_memory_bytes: int | None = None


class ChildProcess:
    """The trainer's process, leader of a process group of its own."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] | None) -> None:
        """Start it.

        Raises:
            OSError: No process can be started.
        """
        tied = [sys.executable, "-I", "-S", child_start.__file__, str(os.getpid()), *command]
        self._process = subprocess.Popen(
            tied,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=None if environment is None else dict(environment),
            process_group=0,
        )

    def take_pipes(self) -> tuple[int, int]:
        """Return the reading ends of stdout and stderr, set not to block."""
        pipes = []
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is None:
                raise RuntimeError("the child was started without pipes")
            os.set_blocking(pipe.fileno(), False)
            pipes.append(pipe.fileno())
        return pipes[0], pipes[1]

    @property
    def has_ended(self) -> bool:
        """Whether it has ended; it is not reaped, so that its process group keeps its number."""
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def ask_to_stop(self) -> None:
        """Send SIGTERM to the trainer alone, not to its group.

        A torch DataLoader worker that gets SIGTERM from anyone but its parent dies of it, and the trainer would report
        a lost worker instead of saving a checkpoint. What is left of the group is killed at the end.
        """
        os.kill(self._process.pid, signal.SIGTERM)

    def kill_group(self) -> None:
        """Kill it and every process it left behind in its group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def reap(self) -> Ending:
        """Return how it ended; call it once, after its end."""
        _, status, usage = os.wait4(self._process.pid, 0)
        code = self._process.returncode = os.waitstatus_to_exitcode(status)
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()
        return Ending(
            exit_code=code if code >= 0 else _SIGNALLED - code,
            signal=-code if code < 0 else None,
            peak_memory_bytes=usage.ru_maxrss * 1024,
        )
