"""The sensor that decides whether a retraining is worth while."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator
from airflow.sdk.exceptions import AirflowSkipException

from peft_retraining.connections import labelled_data_engine
from peft_retraining.data_watch.labelled_table import LabelledRows, LabelledTable
from peft_retraining.data_watch.windows import DataWindow
from peft_retraining.errors import FailureClass, RetrainingError
from peft_retraining.recording import TaskRecord, recorded_task
from peft_retraining.run_context import as_iso, settings_of_run, started_by, window_of_run
from peft_retraining.settings import Settings
from peft_retraining.triggers.labelled_data import LabelledDataTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

_TRIGGER_GRACE = timedelta(minutes=10)
"""The trigger ends by itself at its deadline; Airflow's own time-out only catches a trigger that does not."""


class WaitedInVain(RetrainingError):
    """The labelled data could not be read until waiting was over; another try would only wait as long again."""

    def __init__(self, failure: dict[str, Any]) -> None:
        self.failure_class = FailureClass(failure["failure_class"])
        super().__init__(failure["message"], failure_code=failure["failure_code"], remedy=failure["remedy"])


class LabelledDataSensor(BaseSensorOperator):
    """Goes on when there are enough new labelled rows, and skips the run with the numbers when there are not.

    It looks once in the worker. A scheduled run then waits in the triggerer for late rows, as long as the setting
    ``data_wait_seconds`` allows; for other runs waiting cannot help, so they are skipped at once.

    Args:
        settings: Of the DAG; says which table, which window, and how many rows are enough.
        kwargs: As for every Airflow operator.
    """

    def __init__(self, *, settings: Settings, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.settings = settings

    def execute(self, context: Context) -> dict[str, Any]:
        """Look once; go on, skip, or hand over to the triggerer."""
        with recorded_task(context, self.settings) as record:
            settings = settings_of_run(context, self.settings)
            window = window_of_run(context, settings)
            record.run(
                adapter_name=settings.adapter_name,
                base_model_name_or_path=settings.base_model_name_or_path,
                peft_type=settings.peft_type,
                triggered_by=started_by(context),
                new_rows_since=window.new_rows_since,
                window_ends_at=window.ends_at,
            )
            wait_seconds = settings.data_wait_seconds if window.may_grow else 0.0
            try:
                count = _count_new_rows(settings, window)
            except RetrainingError as error:
                if not error.retryable or not wait_seconds:
                    raise
                self.log.warning("%s; waiting up to %.0f s for it to pass", error, wait_seconds)
                count = 0
            if count < settings.min_new_rows and wait_seconds:
                self.log.info("%d new rows, %d are needed; waiting", count, settings.min_new_rows)
                self._wait(settings, window, wait_seconds)
            return self._decide(count, settings, window, record)

    def resume(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Go on after the trigger: enough rows, not enough, or a failure."""
        with recorded_task(context, self.settings) as record:
            settings = settings_of_run(context, self.settings)
            failure = event.get("failure")
            if failure:
                raise WaitedInVain(failure)
            return self._decide(event["new_row_count"], settings, window_of_run(context, settings), record)

    def _wait(self, settings: Settings, window: DataWindow, wait_seconds: float) -> None:
        self.defer(
            trigger=LabelledDataTrigger(
                conn_id=settings.labelled_data_conn_id,
                table=dataclasses.asdict(LabelledTable.of(settings)),
                new_rows_since=as_iso(window.new_rows_since),
                ends_at=window.ends_at.isoformat(),
                min_new_rows=settings.min_new_rows,
                poll_interval_seconds=settings.data_poll_interval_seconds,
                deadline_at=(datetime.now(UTC) + timedelta(seconds=wait_seconds)).isoformat(),
            ),
            method_name="resume",
            timeout=timedelta(seconds=wait_seconds) + _TRIGGER_GRACE,
        )

    def _decide(self, count: int, settings: Settings, window: DataWindow, record: TaskRecord) -> dict[str, Any]:
        record.run(new_row_count=count)
        if window.new_rows_since is not None and window.new_rows_since >= window.ends_at:
            numbers = (
                f"the last published adapter covers the rows up to {window.new_rows_since:%Y-%m-%d %H:%M} UTC, this "
                f"run those before {window.ends_at:%Y-%m-%d %H:%M} UTC; 0 are new, {settings.min_new_rows} are needed"
            )
        else:
            since = f"since {window.new_rows_since:%Y-%m-%d %H:%M} UTC" if window.new_rows_since else "in all"
            numbers = (
                f"{count} new labelled rows {since} and before {window.ends_at:%Y-%m-%d %H:%M} UTC; "
                f"{settings.min_new_rows} are needed"
            )
        self.log.info("%s", numbers)
        if count < settings.min_new_rows:
            raise AirflowSkipException(f"not enough new data: {numbers}")
        return {
            "new_row_count": count,
            "new_rows_since": as_iso(window.new_rows_since),
            "window_ends_at": window.ends_at.isoformat(),
        }


def _count_new_rows(settings: Settings, window: DataWindow) -> int:
    engine = labelled_data_engine(settings.labelled_data_conn_id)
    try:
        return LabelledRows(engine, LabelledTable.of(settings)).count_new(window)
    finally:
        engine.dispose()
