"""Run one command and leave nothing of it behind: what an init does for a container.

Run as: ``python -I -S keeper.py PARENT_PID GRACE_SECONDS COMMAND [ARGUMENT ...]``

The keeper is the subreaper of everything the command starts, so no descendant can slip away by a double fork
or a session of its own. It ends the command, and whatever the command has started,

- when it is told to: on SIGTERM or SIGINT it sends SIGTERM to the command's process group and SIGKILL to what is left
  after ``GRACE_SECONDS``; on SIGUSR1 it sends SIGKILL to everything at once;
- when its parent dies, however that happens: the kernel then sends it SIGTERM;
- when the command itself ends: what it left behind is killed at once, as when the first process of a container ends.

It exits with the command's exit code, or 128 plus the number of the signal that ended the command. Standard library
only, and quick to start. Linux only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
KILL_SIGNAL = signal.SIGUSR1
_STOP_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT})
_AWAITED_SIGNALS = _STOP_SIGNALS | {KILL_SIGNAL, signal.SIGCHLD}
_KILL_AGAIN_SECONDS = 0.1


def descendants(pid: int) -> list[int]:
    """Return the ids of all processes below ``pid``, parents before their children, ``pid`` not included."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_bytes()
            except OSError:  # It has ended meanwhile.
                continue
            # The name of the program, in parentheses, may itself hold spaces and parentheses.
            parent = int(stat[stat.rindex(b")") + 2 :].split()[1])
            children.setdefault(parent, []).append(int(entry.name))
    found = list(children.get(pid, ()))
    for child in found:
        found.extend(children.get(child, ()))
    return found


def main(arguments: list[str]) -> int:
    """Keep the command that ``arguments`` name and return the exit code described above."""
    parent, grace_seconds, command = int(arguments[0]), float(arguments[1]), arguments[2:]
    _become_subreaper_that_dies_after(parent)
    signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED_SIGNALS)
    child = _start(command)
    exit_codes: dict[int, int] = {}
    if _wait_until_ended_or_told(child, exit_codes) in _STOP_SIGNALS:
        _ask_to_end(child)
        _wait_until_all_ended_or_told_again(exit_codes, grace_seconds)
    _kill_what_is_left(exit_codes)
    return exit_codes[child]


def _become_subreaper_that_dies_after(parent: int) -> None:
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # It died before the kernel was asked to tell.
        raise SystemExit(f"keeper: process {parent} is not the parent, or is gone; nothing was started")
    # What was passed on for the keeper to hold (a lock) is not the command's.
    for descriptor in [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]:
        if descriptor > sys.stderr.fileno():
            try:
                os.set_inheritable(descriptor, False)
            except OSError:  # The one that listed the directory.
                continue


def _start(command: list[str]) -> int:
    keeper = os.getpid()
    child = os.fork()
    if child:
        return child
    try:
        os.setsid()
        # Should the keeper be killed before the command.
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != keeper:
            os._exit(1)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _AWAITED_SIGNALS)
        os.execvp(command[0], command)
    except OSError as error:
        print(f"keeper: cannot run {command[0]}: {error}", file=sys.stderr, flush=True)
    os._exit(127)


def _wait_until_ended_or_told(child: int, exit_codes: dict[int, int]) -> int:
    """Return the signal that told the keeper to end ``child``; SIGCHLD when it ended by itself."""
    while True:
        received = signal.sigwait(_AWAITED_SIGNALS)
        _reap(exit_codes)
        if received != signal.SIGCHLD or child in exit_codes:
            return received


def _ask_to_end(child: int) -> None:
    try:
        os.killpg(child, signal.SIGTERM)
    except ProcessLookupError:
        # The group is gone, or the child has not come to have one yet and is waiting with its signals blocked.
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGTERM)


def _wait_until_all_ended_or_told_again(exit_codes: dict[int, int], grace_seconds: float) -> None:
    deadline = time.monotonic() + grace_seconds
    while not _childless() and (remaining := deadline - time.monotonic()) > 0:
        received = signal.sigtimedwait(_AWAITED_SIGNALS, remaining)
        _reap(exit_codes)
        if received is not None and received.si_signo == KILL_SIGNAL:
            return


def _kill_what_is_left(exit_codes: dict[int, int]) -> None:
    while not _childless():
        for pid in descendants(os.getpid()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        signal.sigtimedwait({signal.SIGCHLD}, _KILL_AGAIN_SECONDS)
        _reap(exit_codes)


def _reap(exit_codes: dict[int, int]) -> None:
    """Collect all children that have ended and note their exit codes by process id."""
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            code = os.waitstatus_to_exitcode(status)
            # An adopted process may have come by the number of one that has ended; the first is the one meant.
            exit_codes.setdefault(pid, code if code >= 0 else 128 - code)


def _childless() -> bool:
    """Whether nothing is left: for a subreaper, to have no child is to have no descendant."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return True
    return False


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"prctl({option}) failed: {os.strerror(error)}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
