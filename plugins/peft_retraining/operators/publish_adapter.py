"""The operator that publishes a trained adapter."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, AssetAlias, BaseOperator

from peft_retraining.errors import PlatformError
from peft_retraining.operators.planning import read_snapshot
from peft_retraining.publishing.adapter_store import AdapterStore
from peft_retraining.publishing.publication import PublishedAdapter, publish
from peft_retraining.recording import recorded_task
from peft_retraining.run_context import run_directory_of, settings_of_run
from peft_retraining.run_store.states import RunState
from peft_retraining.settings import Settings
from training_contract.documents import read_document
from training_contract.errors import ContractError
from training_contract.locations import AttemptDirectory, RunDirectory
from training_contract.result import TrainingResult
from training_contract.snapshot import SnapshotManifest

if TYPE_CHECKING:
    from airflow.sdk import Context


class PublishAdapterOperator(BaseOperator):
    """Publishes the adapter of this DAG run; ``latest`` moves unless it stands for a newer interval.

    When ``latest`` moved, an asset event is added through the ``AssetAlias`` outlets of the task: a backfill of old
    days wakes nobody.

    Args:
        settings: Of the DAG; says where adapters are published and under which name.
        train_task_id: The task whose result is published.
        kwargs: As for every Airflow operator.
    """

    def __init__(self, *, settings: Settings, train_task_id: str = "train_adapter", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.settings = settings
        self.train_task_id = train_task_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Publish; return the version, its path, and whether ``latest`` moved."""
        with recorded_task(context, self.settings) as record:
            settings = settings_of_run(context, self.settings)
            run_directory = run_directory_of(context, settings)
            snapshot = read_snapshot(run_directory)
            attempt, result = _judged_result(context, self.train_task_id, run_directory, snapshot)
            published = publish(
                AdapterStore(Path(settings.adapters_directory), settings.adapter_name),
                attempt.adapter_directory,
                result,
                dag_id=context["ti"].dag_id,
                run_id=context["ti"].run_id,
                window_ends_at=datetime.fromisoformat(snapshot.window_ends_at),
            )
            self.log.info(
                "Published %s; latest %s: %s",
                published.path,
                "moved" if published.moved_latest else "stays",
                published.alias_reason,
            )
            # A try that died after it had moved `latest` announced nothing: Airflow sends events with a task's success.
            if published.moved_latest or (published.is_latest and not record.last_try_succeeded()):
                self._announce(context, settings, published)
            record.run(
                state=RunState.SUCCEEDED,
                adapter_version=published.version,
                adapter_path=str(published.path),
                moved_latest=published.is_latest,
            )
            return {
                "adapter_version": published.version,
                "adapter_path": str(published.path),
                "moved_latest": published.moved_latest,
            }

    def _announce(self, context: Context, settings: Settings, published: PublishedAdapter) -> None:
        """Add an asset event to every alias among the outlets."""
        asset = adapter_asset(settings.adapter_name)
        for outlet in self.outlets:
            if isinstance(outlet, AssetAlias):
                context["outlet_events"][outlet].add(
                    asset,
                    extra={
                        "adapter_version": published.version,
                        "training_run_id": published.manifest.training_run_id,
                        "window_ends_at": published.manifest.window_ends_at,
                        "adapter_heldout_loss": published.manifest.adapter_heldout_loss,
                        "base_heldout_loss": published.manifest.base_heldout_loss,
                    },
                )


def adapter_alias(adapter_name: str) -> str:
    """Return the name of the asset alias that stands for an adapter's ``latest``; serving DAGs schedule on it."""
    return f"peft-adapter/{adapter_name}"


def adapter_asset(adapter_name: str) -> Asset:
    """Return the asset that gets an event whenever an adapter's ``latest`` moved; serving DAGs schedule on it."""
    return Asset(name=f"peft-adapter/{adapter_name}/latest", uri=f"peft-adapter://{adapter_name}/latest")


def _judged_result(
    context: Context, train_task_id: str, run_directory: RunDirectory, snapshot: SnapshotManifest
) -> tuple[AttemptDirectory, TrainingResult]:
    """Return the attempt that the training task judged to have succeeded, with its result.

    Raises:
        PlatformError: There is none, or its directory is not what was judged.
    """
    told = context["ti"].xcom_pull(task_ids=train_task_id)
    try:
        attempt = run_directory.attempt(int(told["attempt_directory"]))
        result = read_document(attempt.result_file, TrainingResult)
        if result.data_digest != snapshot.digest:
            raise ValueError(f"it was trained on the rows {result.data_digest}, and those frozen are {snapshot.digest}")
    except (TypeError, KeyError, ValueError, ContractError) as error:
        raise PlatformError(
            f"the result that {train_task_id} judged cannot be published from {run_directory.root}: {error}",
            failure_code="training_result_missing",
            remedy=f"Clear {train_task_id} of this run, and see that every worker shares the setting runs_directory.",
            evidence={"run_directory": str(run_directory.root)},
        ) from error
    return attempt, result
