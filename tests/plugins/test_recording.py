"""What a task leaves in the record, and what Airflow gets to see of a failure."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException, AirflowTaskTimeout
from sqlalchemy import create_engine

from peft_retraining.callbacks import XCOM_KEY, record_failure, record_run_failure
from peft_retraining.errors import InfrastructureError, UserError
from peft_retraining.identity import AttemptKey
from peft_retraining.recording import FailedForGood, FailedForNow, TaskRecord, recorded_task
from peft_retraining.run_store.records import AttemptFacts, TrainingAttempt
from peft_retraining.run_store.states import RunState
from peft_retraining.run_store.store import RunStore
from peft_retraining.settings import Settings

KEY = AttemptKey(dag_id="d", run_id="r", task_id="train_adapter")


class TaskInstance(SimpleNamespace):
    """Airflow's, as far as callbacks use it."""

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = value


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunStore:
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    monkeypatch.setenv("AIRFLOW_CONN_PEFT_RETRAINING_DB", url)
    return RunStore.open(create_engine(url))


@pytest.fixture
def context() -> Any:
    return {
        "ti": TaskInstance(dag_id="d", run_id="r", task_id="train_adapter", map_index=-1, try_number=1, pushed={}),
        "dag_run": SimpleNamespace(run_type="manual", run_after=datetime(2026, 11, 11, tzinfo=UTC)),
        "task": SimpleNamespace(settings=Settings()),
        "params": {},
    }


def only_attempt(store: RunStore) -> TrainingAttempt:
    run = store.run_of("d", "r")
    assert run is not None
    assert run.attempts is not None
    [attempt] = run.attempts
    return attempt


def fail(context: Any, error: BaseException) -> None:
    with recorded_task(context, Settings()):
        raise error


USER_ERROR = UserError("the thing is wrong", failure_code="thing_wrong", remedy="mend the thing")


def test_the_row_is_there_before_the_work_begins(store: RunStore, context: Any) -> None:
    with recorded_task(context, Settings()):
        assert only_attempt(store).state is RunState.RUNNING

    assert only_attempt(store).state is RunState.SUCCEEDED


def test_a_failure_that_stays_is_not_retried(store: RunStore, context: Any) -> None:
    with pytest.raises(FailedForGood) as caught:
        fail(context, USER_ERROR)

    assert isinstance(caught.value, AirflowFailException)
    assert str(caught.value) == "[thing_wrong] the thing is wrong\nRemedy: mend the thing"
    failure = only_attempt(store).facts.failure
    assert failure is not None
    assert (failure.failure_code, failure.failure_reason, failure.remedy) == (
        "thing_wrong",
        "the thing is wrong",
        "mend the thing",
    )


def test_a_failure_that_may_pass_is_left_to_airflows_retries(store: RunStore, context: Any) -> None:
    with pytest.raises(FailedForNow) as caught:
        fail(context, InfrastructureError("away", failure_code="away", remedy="wait"))

    assert isinstance(caught.value, AirflowException)
    assert not isinstance(caught.value, AirflowFailException)


def test_a_skip_is_recorded_with_its_numbers(store: RunStore, context: Any) -> None:
    with pytest.raises(AirflowSkipException):
        fail(context, AirflowSkipException("not enough new data: 3"))

    attempt = only_attempt(store)
    assert attempt.state is RunState.SKIPPED
    assert attempt.facts.failure is not None
    assert attempt.facts.failure.failure_reason == "not enough new data: 3"


@pytest.mark.parametrize(
    ("error", "failure_code"),
    [
        (AirflowTaskTimeout("Timeout, PID: 1"), "task_timed_out"),
        (KeyError("surprise"), "task_error"),
        (SystemExit(3), "task_error"),
    ],
)
def test_any_other_end_is_recorded_too(store: RunStore, context: Any, error: BaseException, failure_code: str) -> None:
    with pytest.raises(type(error)):
        fail(context, error)

    failure = only_attempt(store).facts.failure
    assert failure is not None
    assert failure.failure_code == failure_code


def test_a_record_that_is_away_changes_no_tasks_fate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, context: Any, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_PEFT_RETRAINING_DB", f"sqlite:///{tmp_path / 'no' / 'such' / 'directory.db'}")

    with recorded_task(context, Settings()) as record:
        record.run(new_row_count=3)

    assert "the task goes on" in caplog.text


def test_progress_is_not_offered_again_soon_to_a_record_that_is_away_but_the_end_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_PEFT_RETRAINING_DB", f"sqlite:///{tmp_path / 'no' / 'such' / 'directory.db'}")
    now = [0.0]
    record = TaskRecord(Settings(), KEY, clock=lambda: now[0])

    def warnings_after(state: RunState, **facts: Any) -> int:
        caplog.clear()
        record.attempt(state, **facts)
        return caplog.text.count("the task goes on")

    assert warnings_after(RunState.RUNNING, phase="training") == 1
    assert warnings_after(RunState.RUNNING, phase="training") == 0
    assert warnings_after(RunState.RUNNING, exit_code=1) == 1
    assert warnings_after(RunState.FAILED) == 1
    now[0] = 61.0
    assert warnings_after(RunState.RUNNING, phase="training") == 1


def test_a_connection_that_cannot_be_used_changes_no_tasks_fate(
    monkeypatch: pytest.MonkeyPatch, context: Any, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_PEFT_RETRAINING_DB", "nosuchkind://host/database")

    with recorded_task(context, Settings()):
        pass
    record_failure({**context, "exception": FailedForGood(USER_ERROR)})

    assert "the task goes on" in caplog.text
    assert context["ti"].pushed[XCOM_KEY]["failure_code"] == "thing_wrong"


@pytest.mark.parametrize(("earlier", "answer"), [(RunState.SUCCEEDED, True), (RunState.FAILED, False), (None, False)])
def test_a_last_try_that_succeeded_is_known(store: RunStore, earlier: RunState | None, answer: bool) -> None:
    if earlier is not None:
        store.record_attempt(replace(KEY, try_number=1), earlier)
        store.record_attempt(replace(KEY, task_id="another", try_number=1), RunState.SUCCEEDED)

    assert TaskRecord(Settings(), replace(KEY, try_number=2)).last_try_succeeded() is answer


def dag_context() -> Any:
    return {
        "dag_run": SimpleNamespace(dag_id="d", run_id="r", end_date=datetime.now(UTC)),
        "dag": SimpleNamespace(dag_id="d", tasks=[SimpleNamespace(settings=Settings())]),
        "run_id": "r",
        "reason": "task_failure",
    }


def test_a_success_before_the_last_try_does_not_count(store: RunStore) -> None:
    store.record_attempt(replace(KEY, try_number=1), RunState.SUCCEEDED)
    store.record_attempt(replace(KEY, try_number=2), RunState.RUNNING)

    assert not TaskRecord(Settings(), replace(KEY, try_number=3)).last_try_succeeded()


@pytest.mark.parametrize("minimal", [False, True], ids=["whole context", "minimal context"])
def test_the_dags_callback_closes_a_run_whose_last_task_was_killed(store: RunStore, minimal: bool) -> None:
    store.record_attempt(KEY, RunState.RUNNING, AttemptFacts(started_at=datetime.now(UTC)))

    context = dag_context()
    if minimal:
        del context["dag_run"]
    record_run_failure(context)

    run = store.run_of("d", "r")
    assert run is not None
    assert run.state is RunState.FAILED
    assert run.failure is not None
    assert run.failure.failure_code == "task_ended_without_word"


def test_the_dags_callback_leaves_a_recorded_cause_alone(store: RunStore, context: Any) -> None:
    with pytest.raises(FailedForGood):
        fail(context, USER_ERROR)

    record_run_failure(dag_context())

    run = store.run_of("d", "r")
    assert run is not None
    assert run.failure is not None
    assert (run.failure.failure_code, run.failed_task_id) == ("thing_wrong", "train_adapter")


def test_the_callback_pushes_the_report_only_in_the_tasks_own_process(store: RunStore, context: Any) -> None:
    record_failure(context)
    assert context["ti"].pushed == {}

    record_failure({**context, "exception": FailedForGood(USER_ERROR)})
    assert context["ti"].pushed[XCOM_KEY]["failure_code"] == "thing_wrong"


def test_the_callback_says_so_when_nobody_knows_the_cause(store: RunStore, context: Any) -> None:
    record_failure(context)

    failure = only_attempt(store).facts.failure
    assert failure is not None
    assert failure.failure_code == "task_ended_without_word"


def test_the_first_cause_stays_when_the_callback_comes_later_or_twice(store: RunStore, context: Any) -> None:
    with pytest.raises(FailedForGood):
        fail(context, USER_ERROR)
    record_failure(context)
    record_failure(context)

    failure = only_attempt(store).facts.failure
    assert failure is not None
    assert failure.failure_code == "thing_wrong"


def test_evidence_goes_into_the_report_and_cannot_hide_the_cause(store: RunStore, context: Any) -> None:
    error = UserError("m", failure_code="real", remedy="r", evidence={"failure_code": "forged", "exit_code": 3})

    record_failure({**context, "exception": FailedForGood(error)})

    report = context["ti"].pushed[XCOM_KEY]
    assert (report["failure_code"], report["exit_code"]) == ("real", 3)
