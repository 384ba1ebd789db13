"""The values that go into the store and come out of it.

What is written are observations: ``RunFacts`` and ``AttemptFacts`` say what one observer knows at one moment. A field
that is ``None`` says nothing and leaves what is stored untouched. Each field states which of two observations stays
(``Stays``); the result depends neither on the order in which they arrive nor on how often.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from peft_retraining.errors import FailureClass
from peft_retraining.identity import AttemptKey
from peft_retraining.run_store.states import RunState
from peft_retraining.run_store.stored_values import clean_fields, clean_text, one_line

MAX_ID_CHARACTERS = 250
"""Airflow's own limit for ids."""
MAX_NAME_CHARACTERS = 100
"""Codes, phases, kinds."""
MAX_REASON_CHARACTERS = 200
"""A failure's reason is one line of a list."""
MAX_PATH_CHARACTERS = 4096
MAX_EXCERPT_CHARACTERS = 32_768
"""Bound of a head and of a tail; who captures the output keeps far less."""


class Stays(StrEnum):
    """Which of two observations of the same fact stays."""

    NEWEST_SEEN = "newest_seen"
    """The one observed last: progress, and where the trainer runs."""
    FIRST_SEEN = "first_seen"
    """The one observed first: how it ended, and why. The first cause wins; a later observer only fills gaps."""
    EARLIEST_TIME = "earliest_time"
    """The earliest value: beginnings and ends."""
    LATEST_TIME = "latest_time"
    """The latest value: signs of life."""


_NEWEST = {"stays": Stays.NEWEST_SEEN}
_NEWEST_NAME = {"stays": Stays.NEWEST_SEEN, "max_characters": MAX_NAME_CHARACTERS}
_NEWEST_ID = {"stays": Stays.NEWEST_SEEN, "max_characters": MAX_ID_CHARACTERS}
_NEWEST_PATH = {"stays": Stays.NEWEST_SEEN, "max_characters": MAX_PATH_CHARACTERS}
_FIRST = {"stays": Stays.FIRST_SEEN}
_EARLIEST = {"stays": Stays.EARLIEST_TIME}
_LATEST = {"stays": Stays.LATEST_TIME}


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why something ended as it did, for people and for the retry decision; stored as a whole, never mixed from two.

    Attributes:
        failure_code: Stable name of the cause, for example ``gpu_out_of_memory``.
        failure_reason: The cause on one line; cut at 200 characters.
        failure_class: Who has to act.
        retryable: Whether a retry can help.
        remedy: What to do about it.
    """

    failure_code: str = field(metadata={"max_characters": MAX_NAME_CHARACTERS})
    failure_reason: str
    failure_class: FailureClass
    retryable: bool
    remedy: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "failure_reason", one_line(self.failure_reason, MAX_REASON_CHARACTERS))
        object.__setattr__(self, "failure_class", FailureClass(self.failure_class))
        clean_fields(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far the trainer is; stored as a whole.

    Attributes:
        progress_percentage: Of the trainer's whole work, 0 to 100.
        estimated_remaining_seconds: Until its end; ``None``: unknown.
        global_step: Optimizer steps done.
        max_steps: Optimizer steps to do.
        metrics: Latest numbers by name, for example ``loss``.
    """

    progress_percentage: float | None = None
    estimated_remaining_seconds: float | None = None
    global_step: int | None = None
    max_steps: int | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        clean_fields(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputExcerpt:
    """Head and tail of one output stream.

    Attributes:
        head: The first text printed.
        tail: The last text printed, when the head is not all there is.
        total_bytes: Bytes printed.
        omitted_characters: Characters printed and in neither head nor tail.
    """

    head: str = ""
    tail: str = ""
    total_bytes: int = 0
    omitted_characters: int = 0

    def __post_init__(self) -> None:
        head, tail = self.head[:MAX_EXCERPT_CHARACTERS], self.tail[-MAX_EXCERPT_CHARACTERS:]
        dropped = self.head[MAX_EXCERPT_CHARACTERS:] + self.tail[:-MAX_EXCERPT_CHARACTERS]
        object.__setattr__(self, "head", clean_text(head, MAX_EXCERPT_CHARACTERS))
        object.__setattr__(self, "tail", clean_text(tail, MAX_EXCERPT_CHARACTERS))
        object.__setattr__(self, "omitted_characters", self.omitted_characters + len(dropped))


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What an observer knows about a run; ``None``: nothing.

    Attributes:
        run_type: Airflow's, for example ``scheduled``, ``manual``, ``backfill``.
        adapter_name: The adapter that is retrained.
        triggered_by: A user's name, or what triggered the run.
        queued_at: When Airflow queued the DAG run.
        started_at: When the DAG run began.
        new_rows_since: Start (inclusive) of the window of new rows.
        window_ends_at: End (exclusive) of the window.
        new_row_count: New labelled rows found in the window.
        train_row_count: Rows trained on.
        heldout_row_count: Rows judged with.
        refused_row_count: Rows that could not be used.
        refused_row_counts: The same by reason.
        data_digest: Digest of the frozen rows.
        base_model_name_or_path: As PEFT has it.
        base_model_revision: The revision asked for or loaded.
        peft_type: As PEFT has it, for example ``LORA``.
        base_heldout_loss: Loss of the base model on the held-out rows, nats a completion token.
        adapter_heldout_loss: The same with the trained adapter.
        adapter_version: The version that was published.
        adapter_path: Where it lies.
        moved_latest: Whether readers of ``latest`` got this version.
    """

    run_type: str | None = field(default=None, metadata=_NEWEST_NAME)
    adapter_name: str | None = field(default=None, metadata=_NEWEST_ID)
    triggered_by: str | None = field(default=None, metadata=_NEWEST_ID)
    queued_at: datetime | None = field(default=None, metadata=_EARLIEST)
    started_at: datetime | None = field(default=None, metadata=_EARLIEST)
    new_rows_since: datetime | None = field(default=None, metadata=_NEWEST)
    window_ends_at: datetime | None = field(default=None, metadata=_NEWEST)
    new_row_count: int | None = field(default=None, metadata=_NEWEST)
    train_row_count: int | None = field(default=None, metadata=_NEWEST)
    heldout_row_count: int | None = field(default=None, metadata=_NEWEST)
    refused_row_count: int | None = field(default=None, metadata=_NEWEST)
    refused_row_counts: Mapping[str, int] | None = field(default=None, metadata=_NEWEST)
    data_digest: str | None = field(default=None, metadata=_NEWEST_NAME)
    base_model_name_or_path: str | None = field(default=None, metadata=_NEWEST_PATH)
    base_model_revision: str | None = field(default=None, metadata=_NEWEST_ID)
    peft_type: str | None = field(default=None, metadata=_NEWEST_NAME)
    base_heldout_loss: float | None = field(default=None, metadata=_NEWEST)
    adapter_heldout_loss: float | None = field(default=None, metadata=_NEWEST)
    adapter_version: str | None = field(default=None, metadata=_NEWEST_ID)
    adapter_path: str | None = field(default=None, metadata=_NEWEST_PATH)
    moved_latest: bool | None = field(default=None, metadata=_NEWEST)

    def __post_init__(self) -> None:
        clean_fields(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFacts:
    """What an observer knows about one try of one task; ``None``: nothing.

    Attributes:
        queued_at: When Airflow queued the try.
        started_at: When Airflow started it. Every observer should give it: it says which of two tasks is the newer one.
        ended_at: When it ended.
        heartbeat_at: When it last gave a sign of life.
        phase: What it is doing, for example ``training``.
        progress: How far it is.
        runner: ``docker`` or ``process``.
        hostname: The machine of the worker.
        process_id: Of the trainer on that machine.
        container_id: Of the trainer at its engine.
        attempt_directory: Number of the attempt's directory in the run directory; a reattaching try joins an older one.
        run_directory: As the worker sees it.
        log_location: Where the whole log is.
        exit_code: Of the trainer, 0 to 255.
        signal: The signal's number when one ended it.
        oom_killed: Whether the kernel killed for memory in its control group.
        failure: Why the try did not succeed.
        stdout: What the trainer printed.
        stderr: What the trainer and its libraries logged.
    """

    queued_at: datetime | None = field(default=None, metadata=_EARLIEST)
    started_at: datetime | None = field(default=None, metadata=_EARLIEST)
    ended_at: datetime | None = field(default=None, metadata=_EARLIEST)
    heartbeat_at: datetime | None = field(default=None, metadata=_LATEST)
    phase: str | None = field(default=None, metadata=_NEWEST_NAME)
    progress: Progress | None = field(default=None, metadata=_NEWEST)
    runner: str | None = field(default=None, metadata=_NEWEST_NAME)
    hostname: str | None = field(default=None, metadata=_NEWEST_ID)
    process_id: int | None = field(default=None, metadata=_NEWEST)
    container_id: str | None = field(default=None, metadata=_NEWEST_ID)
    attempt_directory: int | None = field(default=None, metadata=_NEWEST)
    run_directory: str | None = field(default=None, metadata=_NEWEST_PATH)
    log_location: str | None = field(default=None, metadata=_NEWEST_PATH)
    exit_code: int | None = field(default=None, metadata=_FIRST)
    signal: int | None = field(default=None, metadata=_FIRST)
    oom_killed: bool | None = field(default=None, metadata=_FIRST)
    failure: Failure | None = field(default=None, metadata=_FIRST)
    stdout: OutputExcerpt | None = field(default=None, metadata=_NEWEST)
    stderr: OutputExcerpt | None = field(default=None, metadata=_NEWEST)

    def __post_init__(self) -> None:
        clean_fields(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingAttempt:
    """One try of one task, as stored.

    Attributes:
        key: Which try of which task.
        state: Where it is.
        updated_at: When it was last observed.
        facts: All that is known about it; ``failure`` only if it failed, was skipped or was cancelled.
    """

    key: AttemptKey
    state: RunState
    updated_at: datetime
    facts: AttemptFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRun:
    """One DAG run, as stored.

    Attributes:
        training_run_id: 16 hexadecimal digits.
        dag_id: As Airflow has it.
        run_id: As Airflow has it.
        state: Where the run is; ``run_state`` has the rule.
        first_observed_at: When the run was first heard of; lists are in this order.
        updated_at: When it was last observed.
        ended_at: ``None`` while it is queued or running.
        heartbeat_at: The last sign of life of any of its tries.
        phase: Of its newest task that tells one; likewise the next two.
        progress_percentage: 0 to 100.
        estimated_remaining_seconds: ``None``: unknown, or over.
        failure: Why it ended as it did; ``None`` while it is queued or running, and when it succeeded.
        failed_task_id: The task that failed.
        facts: All else that is known about it.
        attempts: Its tries by task and number; ``None``: not asked for, as in lists.
    """

    training_run_id: str
    dag_id: str
    run_id: str
    state: RunState
    first_observed_at: datetime
    updated_at: datetime
    facts: RunFacts
    ended_at: datetime | None = None
    heartbeat_at: datetime | None = None
    phase: str | None = None
    progress_percentage: float | None = None
    estimated_remaining_seconds: float | None = None
    failure: Failure | None = None
    failed_task_id: str | None = None
    attempts: tuple[TrainingAttempt, ...] | None = None

    @property
    def cursor(self) -> str:
        """Where this run stands in a list: give it as ``before`` to get the runs after it."""
        return f"{self.first_observed_at.isoformat()}~{self.training_run_id}"
