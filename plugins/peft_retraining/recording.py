"""Writes what a task does into the record of runs, and hands its failure to Airflow.

Every operator runs its work inside ``recorded_task``: the row is there before the work begins and says how it ended,
whoever is alive to run a callback. The record never decides a task's fate: when its database is away, the task log says
so and the work goes on.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowSkipException,
    AirflowTaskTimeout,
    TaskDeferred,
)
from sqlalchemy.engine import Engine

from peft_retraining.connections import run_store_engine
from peft_retraining.errors import FailureClass, RetrainingError
from peft_retraining.identity import AttemptKey
from peft_retraining.run_context import attempt_key, run_type_of
from peft_retraining.run_store.records import AttemptFacts, Failure, RunFacts, TrainingRun
from peft_retraining.run_store.states import RunState
from peft_retraining.run_store.store import RunStore
from peft_retraining.settings import Settings

if TYPE_CHECKING:
    from airflow.sdk import Context

_log = logging.getLogger(__name__)

_REPEATED_FACTS = frozenset({"phase", "progress"})
_SILENCE_SECONDS = 60.0
"""After the record could not be written, progress is not offered to it again before this has passed."""


class FailedForGood(AirflowFailException):
    """The task failed in a way that a retry would only repeat."""

    def __init__(self, error: RetrainingError) -> None:
        self.error = error
        super().__init__(_for_people(error))


class FailedForNow(AirflowException):
    """The task failed in a way that may pass; Airflow retries as the DAG says."""

    def __init__(self, error: RetrainingError) -> None:
        self.error = error
        super().__init__(_for_people(error))


class TaskRecord:
    """The record of one try of one task, open while the try runs."""

    def __init__(self, settings: Settings, key: AttemptKey, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Name the try; the database is opened at the first word.

        Args:
            settings: Says which connection the record is behind.
            key: Which try of which task.
            clock: Seconds, for tests.
        """
        self._settings = settings
        self._key = key
        self._clock = clock
        self._started_at = datetime.now(UTC)
        self._engine: Engine | None = None
        self._store: RunStore | None = None
        self._silent_until = float("-inf")

    def run(
        self,
        *,
        state: RunState | None = None,
        state_at: datetime | None = None,
        failure: Failure | None = None,
        **facts: Any,
    ) -> None:
        """Record what became known about the run as a whole.

        Args:
            state: Where the run as a whole is; only the last task knows that it succeeded.
            state_at: Since when; ``None``: now.
            failure: Why the run failed, where no task can tell.
            facts: Fields of ``RunFacts``.
        """
        self._write(
            lambda store: store.record_run(
                self._key.dag_id, self._key.run_id, RunFacts(**facts), state=state, state_at=state_at, failure=failure
            ),
            insist=True,
        )

    def attempt(self, state: RunState, **facts: Any) -> None:
        """Record where this try is.

        Args:
            state: The try's state.
            facts: Fields of ``AttemptFacts``.
        """
        now = datetime.now(UTC)
        ending = {"ended_at": now} if state.is_terminal else {}
        known = {"started_at": self._started_at, "heartbeat_at": now, **ending, **facts}
        comes_again = not state.is_terminal and facts.keys() <= _REPEATED_FACTS
        self._write(lambda store: store.record_attempt(self._key, state, AttemptFacts(**known)), insist=not comes_again)

    def last_try_succeeded(self) -> bool:
        """Return whether the try before this one of this very task is known to have succeeded."""
        found: list[TrainingRun | None] = []
        self._write(lambda store: found.append(store.run_of(self._key.dag_id, self._key.run_id)), insist=True)
        attempts = [attempt for run in found if run is not None for attempt in run.attempts or ()]
        return any(
            attempt.state is RunState.SUCCEEDED and attempt.key.try_number == self._key.try_number - 1
            for attempt in attempts
            if (attempt.key.task_id, attempt.key.map_index) == (self._key.task_id, self._key.map_index)
        )

    def close(self) -> None:
        """Give the database connection back."""
        if self._engine is not None:
            self._engine.dispose()

    def _write(self, action: Callable[[RunStore], None], *, insist: bool) -> None:
        """Do something with the record; when that fails, the task goes on.

        Args:
            action: What to do.
            insist: Try also shortly after a failure: what is said once must not be lost for the sake of quiet.
        """
        if not insist and self._clock() < self._silent_until:
            return
        try:
            if self._engine is None:
                self._engine = run_store_engine(self._settings.run_store_conn_id)
            if self._store is None:
                self._store = RunStore.open(self._engine)
            action(self._store)
        except Exception as error:
            # Whatever it is, a driver's or a secrets backend's own error included: no record is worth a training.
            self._silent_until = self._clock() + _SILENCE_SECONDS
            remedy = error.remedy if isinstance(error, RetrainingError) else ""
            _log.warning("The record of runs was not updated; the task goes on: %s %s", error, remedy)


@contextlib.contextmanager
def recorded_task(context: Context, settings: Settings) -> Iterator[TaskRecord]:
    """Record a try from its beginning to its end, and translate its failure for Airflow.

    Args:
        context: Airflow's task context.
        settings: Of the DAG.

    Raises:
        FailedForGood: The work failed and a retry would only repeat that.
        FailedForNow: The work failed and a retry may help.
    """
    record = TaskRecord(settings, attempt_key(context))
    record.run(run_type=run_type_of(context))
    record.attempt(RunState.RUNNING, hostname=socket.gethostname())
    try:
        yield record
    except RetrainingError as error:
        record.attempt(RunState.FAILED, failure=failure_of(error))
        raise (FailedForNow(error) if error.retryable else FailedForGood(error)) from error
    except AirflowSkipException as skip:
        reason = Failure(
            failure_code="skipped",
            failure_reason=str(skip),
            failure_class=FailureClass.USER,
            retryable=False,
            remedy="Nothing to do: the next run counts these rows again.",
        )
        record.attempt(RunState.SKIPPED, failure=reason)
        raise
    except TaskDeferred:
        raise
    except BaseException as error:
        record.attempt(RunState.FAILED, failure=failure_of(error))
        raise
    else:
        record.attempt(RunState.SUCCEEDED)
    finally:
        record.close()


def failure_of(error: BaseException | str | None) -> Failure:
    """Say in the record's words why a task failed.

    Args:
        error: What ended it; ``None`` when nobody could say.
    """
    if isinstance(error, FailedForGood | FailedForNow):
        error = error.error
    if isinstance(error, RetrainingError):
        return Failure(
            failure_code=error.failure_code,
            failure_reason=str(error),
            failure_class=error.failure_class,
            retryable=error.retryable,
            remedy=error.remedy,
        )
    if isinstance(error, AirflowTaskTimeout):
        return Failure(
            failure_code="task_timed_out",
            failure_reason=f"the task took longer than its execution_timeout: {error}",
            failure_class=FailureClass.USER,
            retryable=True,  # Airflow retries it
            remedy="Raise the task's execution_timeout.",
        )
    if error is None:
        return Failure(
            failure_code="task_ended_without_word",
            failure_reason="the task's process ended without saying why: it was killed, or its machine was lost",
            failure_class=FailureClass.INFRA,
            retryable=True,
            remedy="Look at the memory of the worker's machine and at the scheduler's log around that time.",
        )
    kind = type(error).__name__ if isinstance(error, BaseException) else "error"
    return Failure(
        failure_code="task_error",
        failure_reason=f"{kind}: {error}",
        failure_class=FailureClass.PLATFORM,
        retryable=True,
        remedy="The task log has the whole traceback; please report it if it is not of your own code.",
    )


def _for_people(error: RetrainingError) -> str:
    return f"[{error.failure_code}] {error}\nRemedy: {error.remedy}"
