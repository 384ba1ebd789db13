"""Failure callbacks: they complete the record, and leave the report of a failure in XCom.

Airflow may call them in the task's own process, in the dag-processor, twice, late, out of order, or never. So they only
ever add to the record (``run_store.merging`` has the rule), and nothing depends on them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peft_retraining.configuration import load_settings
from peft_retraining.errors import RetrainingError
from peft_retraining.identity import AttemptKey
from peft_retraining.recording import FailedForGood, FailedForNow, TaskRecord, failure_of
from peft_retraining.run_context import attempt_key
from peft_retraining.run_store.states import RunState
from peft_retraining.settings import Settings

if TYPE_CHECKING:
    from airflow.sdk import Context

    from peft_retraining.run_store.records import Failure

XCOM_KEY = "training_failure"
"""XCom key of the report: an object with the failure, and head and tail of both output streams if a trainer ran."""


def record_failure(context: Context) -> None:
    """Airflow ``on_failure_callback`` and ``on_retry_callback`` of every task of a retraining DAG.

    Args:
        context: Airflow's; ``exception`` is a key of it only in the task's own process.
    """
    error = context.get("exception")
    failure = failure_of(error)
    record = TaskRecord(_settings_of(context), attempt_key(context))
    record.attempt(RunState.FAILED, failure=failure)
    record.close()
    if "exception" in context:
        # Anywhere else a push would wait for ever for an answer: the dag-processor's channel has no such message.
        context["ti"].xcom_push(key=XCOM_KEY, value=failure_report(failure, error))


def record_run_failure(context: Context) -> None:
    """Airflow ``on_failure_callback`` of the DAG: closes a run whose last task could not say why it ended.

    No callback of a task runs for a worker that was killed at its last try. A cause that a task has recorded stays.

    Args:
        context: Airflow's, in the dag-processor.
    """
    # The dag-processor's context may be as little as the DAG and the run's id.
    key = AttemptKey(dag_id=context["dag"].dag_id, run_id=context["run_id"], task_id="")
    record = TaskRecord(_settings_of(context), key)
    ended_at = getattr(context.get("dag_run"), "end_date", None)
    record.run(state=RunState.FAILED, state_at=ended_at, failure=failure_of(None))
    record.close()


def failure_report(failure: Failure, error: Any) -> dict[str, Any]:
    """Return the report of a failure as JSON: the cause, and what the trainer printed.

    Args:
        failure: The cause.
        error: What ended the task; its evidence is added, for a training how it ended and what was printed.
    """
    cause = error.error if isinstance(error, FailedForGood | FailedForNow) else error
    evidence = cause.evidence if isinstance(cause, RetrainingError) else {}
    return {
        **evidence,
        "failure_code": failure.failure_code,
        "failure_reason": failure.failure_reason,
        "failure_class": failure.failure_class.value,
        "retryable": failure.retryable,
        "remedy": failure.remedy,
    }


def _settings_of(context: Context) -> Settings:
    tasks = [context.get("task"), *getattr(context.get("dag"), "tasks", ())]
    known = [task.settings for task in tasks if isinstance(getattr(task, "settings", None), Settings)]
    return known[0] if known else load_settings()
