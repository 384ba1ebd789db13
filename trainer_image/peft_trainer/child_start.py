"""Becomes the trainer's process, tied to its parent: ``python -I -S child_start.py PARENT_PROCESS_ID COMMAND...``.

A program of its own instead of ``subprocess``'s ``preexec_fn``, which runs Python between fork and exec and can
deadlock when the parent has threads. It is run by its path and imports the standard library only: about 20 ms. A
command that cannot be started ends it as a shell would: 127 not found, 126 not executable, the reason on stderr.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

CANNOT_EXECUTE = 126
NOT_FOUND = 127
_PR_SET_PDEATHSIG = 1


def become(parent_process_id: int, command: Sequence[str]) -> NoReturn:
    """Replace this process by a command that dies with its parent.

    Args:
        parent_process_id: The process to die with.
        command: The program and its arguments.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        _give_up(CANNOT_EXECUTE, f"cannot be tied to its parent: {os.strerror(number)}")
    if os.getppid() != parent_process_id:
        # The parent died before the call above: no signal will ever come.
        os._exit(CANNOT_EXECUTE)
    for ignored_by_python in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(ignored_by_python, signal.SIG_DFL)
    try:
        os.execvp(command[0], list(command))  # noqa: S606  # there is no shell, on purpose
    except FileNotFoundError as error:
        _give_up(NOT_FOUND, f"{command[0]}: {error.strerror}")
    except OSError as error:
        _give_up(CANNOT_EXECUTE, f"{command[0]}: {error.strerror}")


def _give_up(exit_code: int, problem: str) -> NoReturn:
    os.write(2, f"The trainer cannot be started: {problem}\n".encode("utf-8", "backslashreplace"))
    os._exit(exit_code)


if __name__ == "__main__":
    become(int(sys.argv[1]), sys.argv[2:])
