"""Reads what a finished attempt left behind and turns it into ``Evidence``.

Whatever is missing, torn or hostile in the directory becomes a finding in the evidence; nothing here raises over it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar

from peft_retraining.container.excerpts import read_end, read_excerpt
from peft_retraining.container.runner import RunnerReport
from peft_retraining.outcome.evidence import Evidence, StreamExcerpt
from training_contract.documents import read_document
from training_contract.durable_files import file_sha256
from training_contract.errors import ContractError
from training_contract.events import EventReader, Finished, Phase, PhaseStarted, Progress
from training_contract.failure import FailureReport
from training_contract.locations import AttemptDirectory
from training_contract.process_exit import ProcessExit
from training_contract.result import FileEntry, TrainingResult

_END_BYTES = 256 * 1024
_MAX_PROBLEMS = 5
_SIGNALLED = range(129, 160)

Document = TypeVar("Document")


def collect_evidence(
    attempt: AttemptDirectory,
    *,
    exit_code: int | None = None,
    report: RunnerReport | None = None,
    stop_requested: bool = False,
) -> Evidence:
    """Read an attempt's directory after its end.

    Args:
        attempt: Its directory; it may be empty or gone.
        exit_code: As the runner tells it; the record of the trainer's parent goes first. ``None``: it cannot tell.
        report: What else the runner knows.
        stop_requested: Whether we asked the trainer to stop.
    """
    report = report or RunnerReport()
    ending, _ = _read(attempt.process_exit_file, ProcessExit)
    failure, _ = _read(attempt.failure_file, FailureReport)
    result, result_problem = _read(attempt.result_file, TrainingResult) if _exists(attempt.result_file) else (None, "")
    last_phase, terminal = _last_events(attempt.events_file)
    stdout, stdout_end = _output(attempt.stdout_file, ending.stdout_bytes if ending else None)
    stderr, stderr_end = _output(attempt.stderr_file, ending.stderr_bytes if ending else None)
    end = _ending(ending, exit_code, report)
    return Evidence(
        exit_code=end.exit_code,
        signal=end.signal,
        oom_killed=end.oom_killed,
        stop_requested=stop_requested or (ending is not None and ending.stop_requested),
        last_phase=last_phase,
        terminal=terminal,
        failure=failure,
        result=result,
        result_problem=result_problem,
        adapter_problems=tuple(_adapter_problems(attempt.adapter_directory, result)) if result else (),
        stdout=stdout,
        stderr=stderr,
        stdout_end=stdout_end,
        stderr_end=stderr_end,
        runner_error=report.error_text,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _End:
    exit_code: int | None
    signal: int | None
    oom_killed: bool | None


def _ending(record: ProcessExit | None, exit_code: int | None, report: RunnerReport) -> _End:
    kills = record.oom_kill_count if record else None
    oom_killed = None if kills is None else kills > 0
    if report.oom_killed is not None:
        oom_killed = report.oom_killed or bool(oom_killed)
    if record is not None:
        return _End(exit_code=record.exit_code, signal=record.signal, oom_killed=oom_killed)
    signal = exit_code - 128 if exit_code is not None and exit_code in _SIGNALLED else None
    return _End(exit_code=exit_code, signal=signal, oom_killed=oom_killed)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return True


def _read(path: Path, kind: type[Document]) -> tuple[Document | None, str]:
    try:
        return read_document(path, kind), ""
    except ContractError as error:
        return None, str(error)


def _last_events(path: Path) -> tuple[Phase | None, Finished | None]:
    phase: Phase | None = None
    terminal: Finished | None = None
    try:
        for read in EventReader(path).read_new():
            if isinstance(read.event, PhaseStarted | Progress):
                phase = read.event.phase
            elif isinstance(read.event, Finished):
                terminal = read.event
    except OSError:
        pass
    return phase, terminal


def _output(path: Path, total_bytes: int | None) -> tuple[StreamExcerpt, str]:
    try:
        return read_excerpt(path, total_bytes=total_bytes), read_end(path, _END_BYTES)
    except OSError as error:
        return StreamExcerpt(head=f"[{path.name} cannot be read: {error.strerror}]"), ""


def _adapter_problems(directory: Path, result: TrainingResult) -> list[str]:
    if not result.adapter_files:
        return ["the result names no file"]
    problems = list(_file_problems(directory, result))
    hidden = len(problems) - _MAX_PROBLEMS
    return [*problems[:_MAX_PROBLEMS], f"and {hidden} more"] if hidden > 0 else problems


def _file_problems(directory: Path, result: TrainingResult) -> Iterator[str]:
    for name, entry in result.adapter_files.items():
        problem = _file_problem(directory, name, entry)
        if problem:
            yield f"{name!r} {problem}"


def _file_problem(directory: Path, name: str, entry: FileEntry) -> str:
    path = PurePosixPath(name)
    file = directory / path
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        return "is not a name inside the adapter"
    try:
        if not file.resolve().is_relative_to(directory.resolve()) or not file.is_file():
            return "is missing"
        size_bytes = file.stat().st_size
        if size_bytes != entry.size_bytes:
            return f"has {size_bytes} bytes, the result says {entry.size_bytes}"
        return "" if file_sha256(file) == entry.sha256 else "does not have the hash that the result says"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
