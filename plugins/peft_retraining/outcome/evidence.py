"""What a finished attempt left behind, as values."""

from __future__ import annotations

from dataclasses import dataclass, field

from training_contract.events import Finished, Phase
from training_contract.failure import FailureReport
from training_contract.result import TrainingResult


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamExcerpt:
    """Head and tail of one output stream, readable: no control characters, progress bars reduced to their last state.

    Attributes:
        head: The first text printed.
        tail: The last text printed, when the head is not all there is.
        total_bytes: Bytes printed.
        omitted_characters: Characters printed and in neither head nor tail; 0 when the two are all of it. Of what
            was not kept at all, each byte counts as one.
    """

    head: str = ""
    tail: str = ""
    total_bytes: int = 0
    omitted_characters: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Everything that a verdict rests on.

    Attributes:
        exit_code: 0-255, 128+n when signal n ended the trainer; ``None``: nobody saw its end, or it never ran.
        signal: The signal's number when one ended it.
        oom_killed: Whether the kernel killed something for memory in the trainer's control group; ``None``: unknown.
        stop_requested: Whether the trainer was asked to stop before it ended.
        last_phase: What it was doing when it last reported.
        terminal: Its own last event.
        failure: Its own report on its failure.
        result: What it says it produced, when that keeps to the contract.
        result_problem: Why the result that is there cannot be used; empty without a ``result``: there is none.
        adapter_problems: What is wrong with the adapter's files, compared with the result's hashes.
        stdout: Head and tail of what it printed.
        stderr: Head and tail of what it and its libraries logged.
        stdout_end: A longer end of the same, readable too, to look for the cause in; not to be stored.
        stderr_end: Likewise.
        runner_error: What the runner itself said of a trainer that it could not start or lost.
    """

    exit_code: int | None
    signal: int | None = None
    oom_killed: bool | None = None
    stop_requested: bool = False
    last_phase: Phase | None = None
    terminal: Finished | None = None
    failure: FailureReport | None = None
    result: TrainingResult | None = None
    result_problem: str = ""
    adapter_problems: tuple[str, ...] = ()
    stdout: StreamExcerpt = field(default_factory=StreamExcerpt)
    stderr: StreamExcerpt = field(default_factory=StreamExcerpt)
    stdout_end: str = ""
    stderr_end: str = ""
    runner_error: str = ""
