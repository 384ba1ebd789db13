"""Start commands under keepers and end them again, with everything they have started.

In: a command. Out: the process of its keeper (``keeper.py``), which says how the command ended.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

from demo import keeper

# How long the kernel may take to end processes that were sent SIGKILL; one that waits for a disk takes its time.
_KILL_SECONDS = 10.0


class ProcessesLeftError(RuntimeError):
    """Processes did not end although they were sent SIGKILL."""


def kept(command: Sequence[str], *, grace_seconds: float) -> list[str]:
    """Return the command that runs ``command`` under a keeper for as long as the calling thread lives.

    Args:
        command: The program, found on the PATH or by its path, and its arguments.
        grace_seconds: How long it may take to end once it was asked to.
    """
    return [sys.executable, "-I", "-S", keeper.__file__, str(os.getpid()), str(grace_seconds), *command]


def ask_to_end(process: subprocess.Popen[bytes]) -> None:
    """Tell a keeper to end its command, with SIGKILL where the grace period is not enough."""
    process.send_signal(signal.SIGTERM)


def kill(name: str, process: subprocess.Popen[bytes]) -> None:
    """End a command and all it has started with SIGKILL.

    Args:
        name: For the error.
        process: Of the keeper.

    Raises:
        ProcessesLeftError: When they do not end.
    """
    process.send_signal(keeper.KILL_SIGNAL)
    wait_for_end({name: process}, seconds=0)


def wait_for_end(processes: Mapping[str, subprocess.Popen[bytes]], *, seconds: float) -> None:
    """Wait for keepers that were asked to end; have them kill what is left when that takes longer than it may.

    Args:
        processes: Of the keepers, by a name for the error.
        seconds: How long to wait before that.

    Raises:
        ProcessesLeftError: When even that does not help.
    """
    deadline = time.monotonic() + seconds
    for process in processes.values():
        if not _ends(process, deadline):
            process.send_signal(keeper.KILL_SIGNAL)
    deadline = time.monotonic() + _KILL_SECONDS
    left = {
        name: keeper.descendants(process.pid) for name, process in processes.items() if not _ends(process, deadline)
    }
    if left:
        raise ProcessesLeftError(f"SIGKILL has not ended these processes: {left}; see what they wait for, and end them")


def _ends(process: subprocess.Popen[bytes], deadline: float) -> bool:
    try:
        process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return False
    return True
