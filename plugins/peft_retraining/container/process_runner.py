"""The runner without a container: the trainer is a process on this worker and dies with the task."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from peft_retraining.container.excerpts import read_end
from peft_retraining.container.runner import RunnerReport
from peft_retraining.container.trainer_command import checked_command, exit_code_of, start_process, trainer_environment
from training_contract.lifeline import LIFELINE_VARIABLE, ProcessIdentity, own_identity
from training_contract.locations import AttemptDirectory, RunDirectory

_POLL_SECONDS = 0.05
_KILLED_WITHIN_SECONDS = 0.5
_MAX_ERROR_BYTES = 8 * 1024


class ProcessRunner:
    """Starts the trainer as a local process."""

    def __init__(self, trainer_command: Sequence[str], *, environment: Mapping[str, str] | None = None) -> None:
        """Say how the trainer is called.

        Args:
            trainer_command: For example ``["/opt/trainer/bin/python", "-m", "peft_trainer"]``.
            environment: What the trainer sees; ``None``: what ``trainer_environment`` passes on of ours.
        """
        self._trainer_command = list(trainer_command)
        self._environment = trainer_environment(os.environ) if environment is None else dict(environment)

    def start(self, run_directory: RunDirectory, attempt: AttemptDirectory) -> RunningProcess:
        """Start the trainer of a run; it is stopped when the calling process ends, however that ends.

        Args:
            run_directory: With spec and snapshot in it.
            attempt: Its directory exists and is empty.

        Raises:
            PlatformError: There is no such command, or the system cannot start it.
        """
        command = [
            *checked_command(self._trainer_command, self._environment),
            *("train", "--run-dir", str(run_directory.root), "--attempt", str(attempt.number)),
        ]
        environment = {**self._environment, LIFELINE_VARIABLE: str(own_identity())}
        launch_log = attempt.root / "launch.log"
        # Files, not pipes: nobody may have to be alive to read what the trainer's parent says. Its stdout is a copy of
        # what it writes into stdout.log itself.
        with launch_log.open("wb") as log:
            process = start_process(command, environment, stdout=subprocess.DEVNULL, stderr=log)
        return RunningProcess(process, attempt, launch_log)


class RunningProcess:
    """A trainer that is a process on this worker."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        attempt: AttemptDirectory,
        launch_log: Path,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Hold a process that was just started, as the leader of its own session.

        Args:
            process: The trainer's parent.
            attempt: Where it leaves its evidence.
            launch_log: What it printed to stderr itself.
            clock: Seconds, for tests.
            sleep: Likewise.
        """
        self._process = process
        self._attempt = attempt
        self._launch_log = launch_log
        self._clock = clock
        self._sleep = sleep
        try:
            self._identity = ProcessIdentity.of(process.pid)
        except ProcessLookupError:
            # It has ended already; no running process has this identity.
            self._identity = ProcessIdentity(process.pid, 0)

    @property
    def identity(self) -> str:
        """The process's number with its start time."""
        return str(self._identity)

    def poll(self) -> int | None:
        """Return its exit code (128+n for signal n), ``None`` while it runs."""
        return_code = self._process.poll()
        return None if return_code is None else exit_code_of(return_code)

    def stop(self, grace_seconds: float) -> None:
        """Ask it to stop, and kill it when it has not ended in time.

        Given 5 seconds, the trainer's parent has killed the trainer itself by then, and recorded how it ended.

        Args:
            grace_seconds: How long it may take to end by itself.
        """
        self._signal(signal.SIGTERM)
        self._wait(grace_seconds)
        if self._runs():
            self._signal(signal.SIGKILL)
            self._wait(_KILLED_WITHIN_SECONDS)

    def report(self) -> RunnerReport:
        """Return what the trainer's parent said when it ended before it came to start the trainer."""
        if self._attempt.stderr_file.exists():
            return RunnerReport()
        with contextlib.suppress(OSError):
            return RunnerReport(error_text=read_end(self._launch_log, _MAX_ERROR_BYTES).strip())
        return RunnerReport()

    def _runs(self) -> bool:
        # Not Popen.poll(): that takes a lock which the code interrupted by a signal handler may hold, and would reap
        # the process, after which its number is anybody's.
        if self._process.returncode is not None:
            return False
        try:
            return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        except ChildProcessError:
            return False

    def _wait(self, seconds: float) -> None:
        deadline = self._clock() + seconds
        while self._runs() and self._clock() < deadline:
            self._sleep(_POLL_SECONDS)

    def _signal(self, number: int) -> None:
        # To the group: a wrapper such as `bash -c` does not hand a signal on. The trainer has a group of its own.
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
