"""Plans one run: the same inputs always give the same spec."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from peft_retraining import __version__
from peft_retraining.identity import training_run_id
from peft_retraining.settings import Settings
from training_contract.preflight_report import CacheState
from training_contract.run_spec import BaseModelSpec, DataSpec, LimitsSpec, RunSpec, TrainingSpec
from training_contract.snapshot import SnapshotManifest


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFinding:
    """What preflight found out about the base model.

    Attributes:
        cache_state: How much of it is there.
        revision: The commit that the wanted revision stands for in the cache; ``None``: unknown, or a directory.
    """

    cache_state: CacheState
    revision: str | None = None


def plan_run(
    settings: Settings,
    snapshot: SnapshotManifest,
    *,
    dag_id: str,
    run_id: str,
    model: ModelFinding | None = None,
) -> RunSpec:
    """Plan a run.

    Whether it works offline is decided here: it downloads only when the settings allow it and the cache lacks the
    model. The revision is pinned to the commit that preflight saw, so that the model cannot change between check and
    training.

    Args:
        settings: Of the DAG, with what this run overrides.
        snapshot: The frozen rows.
        dag_id: As Airflow has it.
        run_id: Likewise.
        model: What preflight found out; ``None`` before it has looked.
    """
    complete = model is not None and model.cache_state is CacheState.COMPLETE
    pinned = model.revision if model is not None else None
    return RunSpec(
        training_run_id=training_run_id(dag_id, run_id),
        adapter_name=settings.adapter_name,
        base_model=BaseModelSpec(
            base_model_name_or_path=settings.base_model_name_or_path,
            revision=pinned or settings.base_model_revision,
            local_files_only=complete or not settings.allow_model_download,
            cache_directory=settings.model_cache_directory,
        ),
        peft_type=settings.peft_type,
        peft_settings=dict(settings.peft_settings),
        training=TrainingSpec(
            num_train_epochs=settings.num_train_epochs,
            max_steps=settings.max_steps,
            learning_rate=settings.learning_rate,
            lr_scheduler_type=settings.lr_scheduler_type,
            warmup_ratio=settings.warmup_ratio,
            per_device_train_batch_size=settings.per_device_train_batch_size,
            gradient_accumulation_steps=settings.gradient_accumulation_steps,
            max_length=settings.max_length,
            save_steps=settings.save_steps,
            seed=settings.seed,
        ),
        data=DataSpec(
            digest=snapshot.digest,
            train_row_count=snapshot.train_row_count,
            heldout_row_count=snapshot.heldout_row_count,
        ),
        limits=LimitsSpec(gpu=settings.gpu, cpu_threads=settings.cpu_threads),
        versions=_versions(),
    )


def _versions() -> Mapping[str, str]:
    return {"airflow-peft-retraining": __version__}
