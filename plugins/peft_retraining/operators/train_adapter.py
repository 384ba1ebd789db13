"""The operator that trains: it starts the trainer, follows it, and judges what it left behind."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from airflow.providers.docker.operators.docker import DockerOperator
from airflow.sdk.exceptions import AirflowTaskTimeout

from peft_retraining.container.choice import runner_of
from peft_retraining.container.evidence_collection import collect_evidence
from peft_retraining.container.follow import AttemptFollower, OutputStream, follow
from peft_retraining.container.runner import RunningTrainer
from peft_retraining.errors import FailureClass
from peft_retraining.operators.planning import model_found_by_preflight, unwritable, write_spec
from peft_retraining.operators.training_failure import TrainingFailed
from peft_retraining.outcome.evidence import Evidence, StreamExcerpt
from peft_retraining.outcome.verdict import Outcome, judge
from peft_retraining.recording import TaskRecord, recorded_task
from peft_retraining.run_context import run_directory_of, settings_of_run
from peft_retraining.run_store.records import OutputExcerpt, Progress
from peft_retraining.run_store.states import RunState
from peft_retraining.settings import Settings
from training_contract import events
from training_contract.locations import AttemptDirectory, RunDirectory

if TYPE_CHECKING:
    from airflow.sdk import Context

_STOP_GRACE_SECONDS = 4.3
"""Airflow's supervisor kills a task 5 seconds after it asked it to stop."""
_RECORD_INTERVAL_SECONDS = 2.0
_HEARTBEAT_INTERVAL_SECONDS = 15.0
_PROGRESS_LOG_INTERVAL_SECONDS = 10.0


class TrainAdapterOperator(DockerOperator):
    """Runs the trainer and judges it by evidence.

    With the ``process`` runner the trainer is a process of its own environment on the worker, and dies with its task.
    What it reports goes into the record of runs while it works; what it prints stays in the run directory, and a
    bounded share of it is in the task log. Success is a valid result whose files are what they say; an exit code alone
    is nothing.

    Args:
        settings: Of the DAG; says which runner, which model, which adapter.
        kwargs: As for ``DockerOperator``; ``image`` comes from the settings unless it is given.
    """

    def __init__(self, *, settings: Settings, **kwargs: Any) -> None:
        super().__init__(**{"image": settings.trainer_image, "mount_tmp_dir": False, **kwargs})
        self.settings = settings
        self._running: RunningTrainer | None = None
        self._stop_requested = False

    def execute(self, context: Context) -> dict[str, Any]:  # type: ignore[override]
        """Train; return where the result is and what was measured."""
        with recorded_task(context, self.settings) as record:
            settings = settings_of_run(context, self.settings)
            run_directory = run_directory_of(context, settings)
            spec = write_spec(
                run_directory,
                settings,
                dag_id=context["ti"].dag_id,
                run_id=context["ti"].run_id,
                model=model_found_by_preflight(run_directory),
            )
            attempt = _open_attempt(run_directory)
            facts = {"attempt_directory": attempt.number, "run_directory": str(run_directory.root)}
            record.attempt(RunState.RUNNING, runner=settings.runner.value, log_location=str(attempt.root), **facts)
            evidence = self._train(run_directory, attempt, settings, record)
            outcome = judge(evidence, spec)
            if not outcome.succeeded or evidence.result is None:
                raise TrainingFailed(outcome, evidence, attempt)
            metrics = evidence.result.metrics
            done = Progress(progress_percentage=100.0, global_step=metrics.global_step, max_steps=metrics.global_step)
            record.attempt(RunState.RUNNING, progress=done)
            record.run(
                base_heldout_loss=metrics.base_heldout_loss,
                adapter_heldout_loss=metrics.adapter_heldout_loss,
                base_model_revision=evidence.result.base_model_revision,
            )
            self.log.info(
                "Trained on %d rows in %d steps: held-out loss %.4f (base model %.4f)",
                metrics.trained_row_count,
                metrics.global_step,
                metrics.adapter_heldout_loss,
                metrics.base_heldout_loss,
            )
            return {
                **facts,
                "base_heldout_loss": metrics.base_heldout_loss,
                "adapter_heldout_loss": metrics.adapter_heldout_loss,
                "global_step": metrics.global_step,
                "trained_row_count": metrics.trained_row_count,
            }

    def on_kill(self) -> None:
        """Stop the trainer; called in a signal handler, so nothing of Airflow's is called here."""
        self._stop_requested = True
        if self._running is not None:
            self._running.stop(_STOP_GRACE_SECONDS)

    def _train(
        self, run_directory: RunDirectory, attempt: AttemptDirectory, settings: Settings, record: TaskRecord
    ) -> Evidence:
        self._running = runner_of(settings).start(run_directory, attempt)
        record.attempt(RunState.RUNNING, process_id=_process_id(self._running))
        self.log.info("The trainer runs (%s); everything it prints is in %s", self._running.identity, attempt.root)
        timed_out: AirflowTaskTimeout | None = None
        exit_code: int | None = None
        try:
            if self._stop_requested:  # while it was being started
                self._running.stop(_STOP_GRACE_SECONDS)
            exit_code = follow(self._running, AttemptFollower(attempt, _Reporting(self.log, record)))
        except AirflowTaskTimeout as timeout:
            timed_out = timeout
        finally:
            # However this ends: no trainer outlives its task.
            if self._running.poll() is None:
                self._stop_requested = True
                self._running.stop(_STOP_GRACE_SECONDS)
                exit_code = self._running.poll()
        evidence = collect_evidence(
            attempt, exit_code=exit_code, report=self._running.report(), stop_requested=self._stop_requested
        )
        record.attempt(
            RunState.RUNNING,
            exit_code=evidence.exit_code,
            signal=evidence.signal,
            oom_killed=evidence.oom_killed,
            stdout=_excerpt_record(evidence.stdout),
            stderr=_excerpt_record(evidence.stderr),
        )
        if timed_out is not None:
            raise TrainingFailed(_timeout_outcome(settings), evidence, attempt) from timed_out
        return evidence


def _timeout_outcome(settings: Settings) -> Outcome:
    return Outcome(
        succeeded=False,
        failure_code="training_timed_out",
        failure_reason=f"training took longer than {settings.train_timeout_seconds:g} seconds and was stopped",
        failure_class=FailureClass.USER,
        retryable=False,
        remedy="Raise the setting train_timeout_seconds, or train fewer rows, fewer epochs or a smaller model.",
    )


class _Reporting:
    """Puts what a trainer reports into the record and the task log, and not too often."""

    def __init__(self, log: Any, record: TaskRecord, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._record = record
        self._clock = clock
        self._phase: str | None = None
        self._progress: events.Progress | None = None
        self._recorded_at = float("-inf")
        self._logged_at = float("-inf")
        self._changed = False

    def on_event(self, read: events.ReadEvent) -> None:
        event = read.event
        if isinstance(event, events.PhaseStarted):
            self._phase, self._changed = event.phase.value, True
            self._recorded_at = self._logged_at = float("-inf")
            self._log.info("Phase: %s", event.phase.value)
        elif isinstance(event, events.Progress):
            self._progress, self._phase, self._changed = event, event.phase.value, True
            self._log_progress(event)
        elif isinstance(event, events.Warned):
            self._log.warning("The trainer warns: %s: %s", event.code, event.message)

    def on_output(self, stream: OutputStream, line: str) -> None:
        self._log.info("[%s] %s", stream.value, line)

    def on_tick(self) -> None:
        # Also when nothing changed: the record's sign of life tells a quiet phase from a worker that is gone.
        now = self._clock()
        if now - self._recorded_at < (_RECORD_INTERVAL_SECONDS if self._changed else _HEARTBEAT_INTERVAL_SECONDS):
            return
        self._recorded_at, self._changed = now, False
        self._record.attempt(RunState.RUNNING, phase=self._phase, progress=_progress_record(self._progress))

    def _log_progress(self, progress: events.Progress) -> None:
        now = self._clock()
        if now - self._logged_at < _PROGRESS_LOG_INTERVAL_SECONDS:
            return
        self._logged_at = now
        self._log.info("%s", _in_words(progress))


def _open_attempt(run_directory: RunDirectory) -> AttemptDirectory:
    try:
        return run_directory.open_attempt()
    except OSError as error:
        raise unwritable(run_directory, error) from error


def _in_words(progress: events.Progress) -> str:
    parts = [f"{progress.progress_percentage:.0f} %"]
    if progress.max_steps:
        parts.append(f"step {progress.global_step} of {progress.max_steps}")
    if progress.estimated_remaining_seconds is not None:
        parts.append(f"about {progress.estimated_remaining_seconds:.0f} s left")
    parts += [f"{name} {progress.metrics[name]:.4g}" for name in ("loss", "learning_rate") if name in progress.metrics]
    return ", ".join(parts)


def _process_id(running: RunningTrainer) -> int | None:
    number = running.identity.partition(":")[0]
    return int(number) if number.isdecimal() else None


def _progress_record(progress: events.Progress | None) -> Progress | None:
    if progress is None:
        return None
    return Progress(
        progress_percentage=progress.progress_percentage,
        estimated_remaining_seconds=progress.estimated_remaining_seconds,
        global_step=progress.global_step,
        max_steps=progress.max_steps,
        metrics=progress.metrics,
    )


def _excerpt_record(excerpt: StreamExcerpt) -> OutputExcerpt:
    return OutputExcerpt(
        head=excerpt.head,
        tail=excerpt.tail,
        total_bytes=excerpt.total_bytes,
        omitted_characters=excerpt.omitted_characters,
    )
