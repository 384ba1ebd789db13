"""The operator that freezes the training rows of a run."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from peft_retraining.connections import labelled_data_engine
from peft_retraining.data_watch.labelled_table import LabelledRows, LabelledTable
from peft_retraining.recording import recorded_task
from peft_retraining.run_context import run_directory_of, settings_of_run, window_of_run
from peft_retraining.settings import Settings
from peft_retraining.snapshots.freezing import existing_snapshot, freeze_rows, prepare_run_directory, snapshot_query

if TYPE_CHECKING:
    from airflow.sdk import Context


class SnapshotTrainingDataOperator(BaseOperator):
    """Freezes the newest usable rows created before the end of the run's window.

    The rows of a DAG run are frozen once: a retry, a clear or a reprocessed backfill trains the same rows, unless the
    question itself (table, window's end, number of rows) was changed.

    Args:
        settings: Of the DAG; says which table and how many rows.
        kwargs: As for every Airflow operator.
    """

    def __init__(self, *, settings: Settings, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.settings = settings

    def execute(self, context: Context) -> dict[str, Any]:
        """Freeze the rows; return where they are, their digest and their numbers."""
        with recorded_task(context, self.settings) as record:
            settings = settings_of_run(context, self.settings)
            window = window_of_run(context, settings)
            run_directory = run_directory_of(context, settings)
            prepare_run_directory(run_directory)
            manifest = existing_snapshot(run_directory, snapshot_query(settings, window))
            if manifest is not None:
                self.log.info("The rows of this run are frozen already, at %s", manifest.frozen_at)
            else:
                engine = labelled_data_engine(settings.labelled_data_conn_id)
                try:
                    manifest = freeze_rows(
                        LabelledRows(engine, LabelledTable.of(settings)).newest_first(window.ends_at),
                        run_directory,
                        settings=settings,
                        window=window,
                        frozen_at=datetime.now(UTC),
                    )
                finally:
                    engine.dispose()
            self.log.info(
                "%d rows to train on, %d held out, %d refused %s, digest %s",
                manifest.train_row_count,
                manifest.heldout_row_count,
                manifest.refused_row_count,
                dict(manifest.refused_row_counts),
                manifest.digest,
            )
            record.run(
                train_row_count=manifest.train_row_count,
                heldout_row_count=manifest.heldout_row_count,
                refused_row_count=manifest.refused_row_count,
                refused_row_counts=manifest.refused_row_counts,
                data_digest=manifest.digest,
            )
            return {
                "run_directory": str(run_directory.root),
                "digest": manifest.digest,
                "train_row_count": manifest.train_row_count,
                "heldout_row_count": manifest.heldout_row_count,
                "refused_row_counts": dict(manifest.refused_row_counts),
            }
