"""What Airflow's task context says, in our own words."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from peft_retraining.data_watch.windows import DataWindow, PublishedWindow, window_for_run
from peft_retraining.identity import AttemptKey
from peft_retraining.publishing.adapter_store import AdapterStore
from peft_retraining.settings import Settings
from training_contract.locations import RunDirectory, path_component

if TYPE_CHECKING:
    from airflow.sdk import Context


def attempt_key(context: Context) -> AttemptKey:
    """Return which try of which task this is."""
    task_instance = context["ti"]
    return AttemptKey(
        dag_id=task_instance.dag_id,
        run_id=task_instance.run_id,
        task_id=task_instance.task_id,
        map_index=task_instance.map_index if task_instance.map_index is not None else -1,
        try_number=task_instance.try_number,
    )


def settings_of_run(context: Context, settings: Settings) -> Settings:
    """Apply what this run overrides in the trigger form or in its conf.

    Raises:
        SettingsInvalid: A value cannot be used.
    """
    return settings.with_params(context["params"])


def window_of_run(context: Context, settings: Settings) -> DataWindow:
    """Decide which rows this DAG run is about.

    Raises:
        RetrainingError: The adapter store cannot be read.
    """
    dag_run = context["dag_run"]
    store = AdapterStore(Path(settings.adapters_directory), settings.adapter_name)
    published = [
        PublishedWindow(
            training_run_id=manifest.training_run_id, ends_at=datetime.fromisoformat(manifest.window_ends_at)
        )
        for manifest in store.versions()
    ]
    return window_for_run(
        training_run_id=attempt_key(context).training_run_id,
        run_type=run_type_of(context),
        data_interval_start=dag_run.data_interval_start,
        data_interval_end=dag_run.data_interval_end,
        run_after=dag_run.run_after,
        published=published,
    )


def run_directory_of(context: Context, settings: Settings) -> RunDirectory:
    """Return where this DAG run's handover lies; it may not exist yet."""
    task_instance = context["ti"]
    root = Path(settings.runs_directory) / path_component(task_instance.dag_id) / path_component(task_instance.run_id)
    return RunDirectory(root)


def started_by(context: Context) -> str:
    """Return who or what started this DAG run: a user's name, else the run's type."""
    return getattr(context["dag_run"], "triggering_user_name", None) or run_type_of(context)


def run_type_of(context: Context) -> str:
    """Return Airflow's name for what kind of DAG run this is, for example ``"scheduled"`` or ``"backfill"``."""
    run_type = context["dag_run"].run_type
    return str(getattr(run_type, "value", run_type))


def as_iso(moment: datetime | None) -> str | None:
    """Spell a time as the contract spells it."""
    return moment.isoformat() if moment is not None else None
