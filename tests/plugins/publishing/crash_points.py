"""Runs the publishing process under strace and makes it die, or a system call of it fail, at a chosen point.

strace delivers the signal when the call is entered, and the call is then not made: killing before each call in turn
shows every state that a crash can leave.
"""

from __future__ import annotations

import errno
import json
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

_REPOSITORY = Path(__file__).parents[3]
_SCRIPT = Path(__file__).with_name("publishing_process.py")
_LOGGED_CALL = re.compile(r"\d+ +(\w+)\(")
_NOT_ABOUT_FILES = frozenset({"mmap", "munmap", "ioctl", "fcntl"})
_CHANGING = re.compile(r"write|fsync|mkdir|chmod|rename|link|rmdir|flock|truncate|copy_file_range|sendfile")
_TIMEOUT_SECONDS = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class CrashPoint:
    """One system call of the publishing.

    Attributes:
        call: Its name.
        number: It is the how manieth of that name in the process, from 1.
        changes_storage: Whether it creates, writes, renames, removes, flushes or locks.
        logged: The call as strace writes it.
    """

    call: str
    number: int
    changes_storage: bool
    logged: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How the process ended."""

    returncode: int
    begun: bool
    ended: bool
    outcome: dict[str, object]
    stderr: str

    @property
    def killed_while_publishing(self) -> bool:
        return self.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL) and self.begun and not self.ended


class PublishingProcess:
    """The process that publishes one attempt into copies of one store."""

    def __init__(self, template: Path, attempt: Path, work: Path) -> None:
        """Prepare to publish.

        Args:
            template: The adapters directory as it is before.
            attempt: What is published.
            work: A directory of our own.
        """
        self.template = template
        self.attempt = attempt
        self.adapters_directory = work / "adapters"
        self._marks = work / "marks"
        self._log = work / "strace.log"
        if shutil.which("strace") is None:
            pytest.fail("strace is missing; install it (Debian: apt-get install strace), these tests need it")

    def crash_points(self) -> list[CrashPoint]:
        """Publish undisturbed, and list the system calls on files that it took."""
        options = ("-y", "-e", "trace=file,desc")  # -y: a descriptor is written with its path
        self._run(*options)  # once more than listed: Python may write its bytecode the first time
        ending = self._run(*options)
        assert ending.outcome, f"publishing under strace failed (is ptrace allowed?): {ending.stderr}"
        counts: Counter[str] = Counter()
        points: list[CrashPoint] = []
        publishing = False
        for line in self._log.read_text().splitlines():
            match = _LOGGED_CALL.match(line)
            if match is None:
                continue
            call = match.group(1)
            counts[call] += 1
            if f'"{self._marks}/ended"' in line:
                return points
            if publishing and call not in _NOT_ABOUT_FILES:
                changes = _CHANGING.search(call) is not None and call != "readlink"
                changes = changes or "O_CREAT" in line
                points.append(CrashPoint(call=call, number=counts[call], changes_storage=changes, logged=line))
            publishing = publishing or f'"{self._marks}/begun"' in line
        raise AssertionError(f"the marks around publishing are not in {self._log}")

    def die_at(self, point: CrashPoint) -> Ending:
        return self._inject(point, "signal=SIGKILL")

    def fail_at(self, point: CrashPoint, number: int) -> Ending:
        return self._inject(point, f"error={errno.errorcode[number]}")

    def _inject(self, point: CrashPoint, fault: str) -> Ending:
        # The call has to be traced as well: with trace=none strace 6.1 injects nothing, and says nothing.
        return self._run("-e", f"trace={point.call}", "-e", f"inject={point.call}:{fault}:when={point.number}")

    def _run(self, *options: str) -> Ending:
        for directory in (self.adapters_directory, self._marks):
            shutil.rmtree(directory, ignore_errors=True)
        shutil.copytree(self.template, self.adapters_directory, symlinks=True)
        self._marks.mkdir()
        done = subprocess.run(
            ["strace", "-f", "-o", str(self._log), *options, *self._command()],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_SECONDS,
            check=False,
        )
        return Ending(
            returncode=done.returncode,
            begun=(self._marks / "begun").exists(),
            ended=(self._marks / "ended").exists(),
            outcome=json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {},
            stderr=done.stderr,
        )

    def _command(self) -> list[str]:
        return publishing_command(self.adapters_directory, self.attempt, self._marks)


def publishing_command(adapters_directory: Path, attempt: Path, marks: Path) -> list[str]:
    """How the publishing process is started; without ``site``, which would take most of its time."""
    arguments = [str(path) for path in (_SCRIPT, _REPOSITORY, adapters_directory, attempt, marks)]
    return [sys.executable, "-S", "-E", *arguments]
