"""Joins the tasks of a retraining DAG; a second adapter is a second DAG file that calls this with other settings."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import DAG, AssetAlias, CronDataIntervalTimetable, Param
from croniter import croniter

from peft_retraining.callbacks import record_failure, record_run_failure
from peft_retraining.operators.preflight import PreflightOperator
from peft_retraining.operators.publish_adapter import PublishAdapterOperator, adapter_alias
from peft_retraining.operators.snapshot_training_data import SnapshotTrainingDataOperator
from peft_retraining.operators.train_adapter import TrainAdapterOperator
from peft_retraining.sensors.labelled_data import LabelledDataSensor
from peft_retraining.settings import Settings, SettingsInvalid, param_names, param_schema

_DOC = """
Retrains the adapter **{adapter_name}** of `{base_model}` when there are enough new labelled conversations.

1. `wait_for_labelled_data`: are there {min_new_rows} new rows? If not, the run is skipped.
2. `snapshot_training_data`: freezes the rows, with a digest and a count of what was refused.
3. `preflight`: checks everything that can be checked before training, all findings at once.
4. `train_adapter`: runs the trainer and judges the result by evidence.
5. `publish_adapter`: publishes the adapter; `latest` moves only to a newer interval.

Records of all runs: `peft-retraining runs list`. When a run failed: `peft-retraining runs show RUN`.
"""


def build_retraining_dag(settings: Settings) -> DAG:
    """Build the DAG that retrains one adapter.

    Args:
        settings: From ``configuration.load_settings``; what a single run may override becomes the trigger form.

    Returns:
        The DAG; assign it to a module-level name, so that Airflow finds it.

    Raises:
        SettingsInvalid: The schedule is no cron expression.
    """
    with DAG(
        dag_id=settings.dag_id,
        schedule=_timetable(settings),
        start_date=datetime.fromisoformat(settings.start_date).replace(tzinfo=UTC),
        catchup=False,
        max_active_runs=1,
        params=_params(settings),
        on_failure_callback=record_run_failure,
        default_args={
            "retries": settings.retries,
            "retry_delay": timedelta(seconds=settings.retry_delay_seconds),
            "retry_exponential_backoff": 2.0,
            "on_failure_callback": record_failure,
            "on_retry_callback": record_failure,
        },
        tags=["peft-retraining", settings.adapter_name],
        doc_md=_DOC.format(
            adapter_name=settings.adapter_name,
            base_model=settings.base_model_name_or_path,
            min_new_rows=settings.min_new_rows,
        ),
    ) as dag:
        wait = LabelledDataSensor(task_id="wait_for_labelled_data", settings=settings)
        snapshot = SnapshotTrainingDataOperator(task_id="snapshot_training_data", settings=settings)
        preflight = PreflightOperator(task_id="preflight", settings=settings)
        train = TrainAdapterOperator(
            task_id="train_adapter",
            settings=settings,
            pool=settings.pool,
            # Of all runs together: a backfill has its own max_active_runs, ten unless it is told otherwise.
            max_active_tis_per_dag=1,
            execution_timeout=timedelta(seconds=settings.train_timeout_seconds),
        )
        publish = PublishAdapterOperator(
            task_id="publish_adapter", settings=settings, outlets=[AssetAlias(adapter_alias(settings.adapter_name))]
        )
        wait >> snapshot >> preflight >> train >> publish
    return dag


def _timetable(settings: Settings) -> CronDataIntervalTimetable:
    # Stated explicitly: a bare cron string would give intervals of zero length.
    try:
        croniter(settings.schedule)
    except ValueError as error:
        raise SettingsInvalid([f"schedule is {settings.schedule!r}; expected a cron expression ({error})"]) from error
    return CronDataIntervalTimetable(settings.schedule, timezone=settings.timezone)


def _params(settings: Settings) -> dict[str, Any]:
    return {
        name: Param(value, **param_schema(name, value)) for name in param_names() for value in [getattr(settings, name)]
    }
