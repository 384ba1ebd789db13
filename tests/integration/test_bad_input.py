"""Bad input through a real scheduler: the run's row names the thing, what was expected, and what to do."""

from __future__ import annotations

import pytest

from integration.conftest import RUN_LIMIT_SECONDS, NightlyJob
from peft_retraining.run_store.records import TrainingRun
from peft_retraining.run_store.states import RunState

pytestmark = pytest.mark.integration

CASES = {
    "missing_database": ("wait_for_labelled_data", "labelled_data_missing", "missing.db does not exist"),
    "unreachable_database": ("wait_for_labelled_data", "labelled_data_unavailable", "does not answer"),
    "missing_connection": ("wait_for_labelled_data", "connection_not_found", "'never_defined'"),
    "missing_table": ("wait_for_labelled_data", "labelled_table_missing", "'ask_ai_querys' does not exist"),
    "missing_column": ("wait_for_labelled_data", "labelled_column_missing", "'answers' (setting completion_column)"),
    "no_usable_rows": ("snapshot_training_data", "no_usable_rows", "0 usable rows"),
    "unwritable_runs": ("snapshot_training_data", "run_directory_unwritable", "/proc/runs"),
    "unknown_peft_type": ("preflight", "preflight_unsupported_peft_type", "NO_SUCH_TYPE"),
    "missing_trainer": ("preflight", "preflight_trainer_environment_missing", "/nonexistent/bin/python"),
    "broken_trainer": ("preflight", "preflight_trainer_preflight_failed", "exit code 1"),
    "docker_runner": ("preflight", "preflight_docker_runner_not_available", "'docker'"),
}


@pytest.fixture(scope="session")
def failed_runs(nightly_job: NightlyJob) -> dict[str, TrainingRun]:
    """Run all broken DAGs, side by side."""
    rest = nightly_job.airflow.rest
    run_ids = {}
    for dag_id in CASES:
        rest.unpause(dag_id)
        run_ids[dag_id] = rest.trigger(dag_id)
    for dag_id, run_id in run_ids.items():
        rest.wait_for_run(dag_id, run_id, timeout_seconds=RUN_LIMIT_SECONDS)
    return {dag_id: nightly_job.record(dag_id, run_id) for dag_id, run_id in run_ids.items()}


@pytest.mark.parametrize("dag_id", CASES)
def test_the_row_says_which_task_failed_why_and_what_to_do(failed_runs: dict[str, TrainingRun], dag_id: str) -> None:
    task_id, failure_code, words = CASES[dag_id]
    record = failed_runs[dag_id]

    assert record.state is RunState.FAILED
    assert record.failure is not None
    assert (record.failed_task_id, record.failure.failure_code) == (task_id, failure_code)
    assert words in record.failure.failure_reason
    assert record.failure.remedy


def test_nothing_was_published(nightly_job: NightlyJob, failed_runs: dict[str, TrainingRun]) -> None:
    assert failed_runs
    assert not list((nightly_job.adapters_directory / "never_published").glob("versions/*"))


def test_no_password_of_a_connection_is_in_row_xcom_or_log(
    nightly_job: NightlyJob, failed_runs: dict[str, TrainingRun]
) -> None:
    dag_id, task_id = "unreachable_database", "wait_for_labelled_data"
    record = failed_runs[dag_id]
    rest = nightly_job.airflow.rest
    told = [
        repr(record),
        str(rest.xcom(dag_id, record.run_id, task_id, "training_failure")),
        rest.task_log(dag_id, record.run_id, task_id),
    ]

    assert all("127.0.0.1" in text for text in told)
    assert not [text for text in told if "s3cret" in text]
