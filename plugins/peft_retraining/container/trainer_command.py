"""The trainer's program on this machine: which environment it gets, and how a short command of its is run."""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from peft_retraining.container.readable_text import readable
from peft_retraining.errors import InfrastructureError, PlatformError

MAX_OUTPUT_BYTES = 64 * 1024
"""Kept of each stream of a short command: its end."""

_READ_BYTES = 64 * 1024
_QUIET_SECONDS = 0.5
_SIGNALLED = 128
_PASSED_ON = re.compile(
    r"PATH|HOME|USER|LOGNAME|LANG|LANGUAGE|LC_\w+|TZ|TMPDIR|XDG_CACHE_HOME|LD_LIBRARY_PATH"
    r"|(HF|HUGGINGFACE|TRANSFORMERS|TOKENIZERS|DATASETS|PEFT_TRAINER|TORCH|PYTORCH|CUDA|NVIDIA|NCCL|OMP|MKL|OPENBLAS)_\w+"
    r"|SSL_CERT_FILE|SSL_CERT_DIR|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|(?i:(http|https|all|no)_proxy)"
)


def trainer_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Choose what the trainer may see of an environment.

    A list of what is passed on, not of what is held back: Airflow's settings, its connections and whatever else a
    worker's environment holds are none of the trainer's business. ``PYTHONPATH`` is the worker's, for another Python.
    """
    return {name: value for name, value in environment.items() if _PASSED_ON.fullmatch(name)}


def checked_command(trainer_command: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """Return the command with the full path of its program.

    Raises:
        PlatformError: There is no such program.
    """
    program = trainer_command[0] if trainer_command else ""
    path = shutil.which(program, path=environment.get("PATH", os.defpath)) if program else None
    if path is None:
        found = f"the program {program!r} was not found or cannot be executed" if program else "it is empty"
        raise PlatformError(
            f"the trainer command cannot be started: {found}",
            failure_code="trainer_environment_missing",
            remedy="Install the trainer's environment on this worker and let the setting trainer_command name its "
            "Python, for example `/opt/trainer/bin/python -m peft_trainer`.",
            evidence={"trainer_command": " ".join(trainer_command)},
        )
    return [path, *trainer_command[1:]]


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletedCommand:
    """A command that ended.

    Attributes:
        exit_code: 0-255; 128+n when signal n ended it.
        stdout: The end of what it printed, at most ``MAX_OUTPUT_BYTES``, readable.
        stderr: Likewise.
    """

    exit_code: int
    stdout: str
    stderr: str


def run_trainer_command(
    trainer_command: Sequence[str],
    arguments: Sequence[str],
    *,
    timeout_seconds: float,
    environment: Mapping[str, str] | None = None,
) -> CompletedCommand:
    """Run a short command of the trainer, such as ``preflight``, to its end and keep what it prints.

    Args:
        trainer_command: How the trainer is called, for example ``["/opt/trainer/bin/python", "-m", "peft_trainer"]``.
        arguments: What it is to do.
        timeout_seconds: Longest duration; after that it is killed.
        environment: What it sees; ``None``: what ``trainer_environment`` passes on of ours.

    Raises:
        PlatformError: There is no such command.
        InfrastructureError: It took too long.
    """
    environment = trainer_environment(os.environ) if environment is None else environment
    command = [*checked_command(trainer_command, environment), *arguments]
    process = start_process(command, environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with process:
        try:
            ends = _read_to_end(process, deadline=time.monotonic() + timeout_seconds)
            exit_code = process.wait()
        except BaseException as error:
            # Also when Airflow's own time limit interrupts us: nothing may be left running.
            _kill_group(process.pid)
            if isinstance(error, TimeoutError):
                raise _took_too_long(arguments, timeout_seconds) from None
            raise
    stdout, stderr = (readable(bytes(end).decode("utf-8", "replace")) for end in ends)
    return CompletedCommand(exit_code=exit_code_of(exit_code), stdout=stdout, stderr=stderr)


def show_trainer_command(trainer_command: Sequence[str], arguments: Sequence[str], *, timeout_seconds: float) -> int:
    """Run a command of the trainer for the person who waits for it: it prints where we do, and Ctrl-C reaches it too.

    Args:
        trainer_command: How the trainer is called, for example ``["/opt/trainer/bin/python", "-m", "peft_trainer"]``.
        arguments: What it is to do.
        timeout_seconds: Longest duration; after that it is killed.

    Returns:
        The exit code, 0-255; 128+n when signal n ended it.

    Raises:
        PlatformError: There is no such command.
        InfrastructureError: It took too long.
    """
    environment = trainer_environment(os.environ)
    command = [*checked_command(trainer_command, environment), *arguments]
    try:
        completed = subprocess.run(
            command, stdin=subprocess.DEVNULL, env=environment, timeout=timeout_seconds, check=False
        )
    except subprocess.TimeoutExpired:
        raise _took_too_long(arguments, timeout_seconds) from None
    except OSError as error:
        raise _cannot_be_started(command, error) from error
    return exit_code_of(completed.returncode)


def start_process(
    command: Sequence[str], environment: Mapping[str, str], *, stdout: int | IO[bytes], stderr: int | IO[bytes]
) -> subprocess.Popen[bytes]:
    """Start a program as the leader of a session of its own, where no terminal and no signal to our group reaches it.

    Raises:
        PlatformError: The system cannot start it.
    """
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env=dict(environment),
            start_new_session=True,
        )
    except OSError as error:
        raise _cannot_be_started(command, error) from error


def exit_code_of(return_code: int) -> int:
    """Return the exit code as a shell has it: 128+n for a process that signal n ended."""
    return return_code if return_code >= 0 else _SIGNALLED - return_code


def _took_too_long(arguments: Sequence[str], timeout_seconds: float) -> InfrastructureError:
    return InfrastructureError(
        f"the trainer command `{' '.join(arguments)}` took longer than {timeout_seconds:g} seconds",
        failure_code="trainer_command_timed_out",
        remedy="Look at the load of this machine and at its network; the next attempt starts afresh.",
    )


def _cannot_be_started(command: Sequence[str], error: OSError) -> PlatformError:
    return PlatformError(
        f"the trainer command cannot be started: {error.strerror}: {command[0]}",
        failure_code="trainer_cannot_be_started",
        remedy="Check that the program is for this machine, and the limits of processes and memory on this worker.",
    )


def _read_to_end(process: subprocess.Popen[bytes], *, deadline: float) -> tuple[bytearray, bytearray]:
    """Read both streams until they end, or until the process has and what it left behind says nothing more."""
    ends = (bytearray(), bytearray())
    with selectors.DefaultSelector() as selector:
        for pipe, end in zip((process.stdout, process.stderr), ends, strict=True):
            if pipe is not None:
                selector.register(pipe, selectors.EVENT_READ, end)
        while selector.get_map():
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            ready = selector.select(min(left, _QUIET_SECONDS))
            if not ready and process.poll() is not None:
                break
            for key, _ in ready:
                chunk = os.read(key.fd, _READ_BYTES)
                key.data.extend(chunk)
                del key.data[:-MAX_OUTPUT_BYTES]
                if not chunk:
                    selector.unregister(key.fileobj)
    return ends


def _kill_group(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)
