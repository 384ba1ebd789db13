"""``spec.json``: what is to be trained, with what, and within which limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class GpuUse(StrEnum):
    """Whether the trainer uses a GPU."""

    REQUIRED = "required"
    IF_AVAILABLE = "if_available"
    NEVER = "never"


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseModelSpec:
    """The model that the adapter is for.

    Attributes:
        base_model_name_or_path: A hub id, or an absolute path of a directory as the trainer sees it.
        revision: Commit, tag or branch on the hub; ``None`` for a directory.
        local_files_only: ``True``: the cache must have it; ``False``: downloading is allowed in this run.
        cache_directory: The hub cache as the trainer sees it; ``None``: the library's own default.
    """

    base_model_name_or_path: str
    revision: str | None = None
    local_files_only: bool = True
    cache_directory: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSpec:
    """Settings of the training loop, named as transformers' ``TrainingArguments`` and TRL's ``SFTConfig`` name them.

    Attributes:
        num_train_epochs: Passes over the training rows.
        max_steps: Optimizer steps at most; ``None``: as the epochs say.
        learning_rate: Peak learning rate.
        lr_scheduler_type: For example ``"cosine"``, ``"linear"``, ``"constant"``.
        warmup_ratio: Share of the steps during which the learning rate rises, 0 to 1.
        weight_decay: AdamW's.
        max_grad_norm: Gradient clipping.
        per_device_train_batch_size: Rows a micro-batch.
        gradient_accumulation_steps: Micro-batches an optimizer step.
        per_device_eval_batch_size: Rows a batch of the held-out evaluation.
        max_length: Longest row in tokens, prompt and completion together; longer rows are left out and counted.
        save_steps: Optimizer steps between checkpoints; ``None``: about ten a run.
        seed: For everything random.
    """

    num_train_epochs: float = 3.0
    max_steps: int | None = None
    learning_rate: float = 1e-3
    lr_scheduler_type: str = "cosine"
    warmup_ratio: float = 0.03
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    per_device_train_batch_size: int = 4
    gradient_accumulation_steps: int = 1
    per_device_eval_batch_size: int = 8
    max_length: int = 512
    save_steps: int | None = None
    seed: int = 42


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSpec:
    """Which frozen rows the run is for.

    Attributes:
        digest: ``sha256:...`` as in the snapshot's manifest; the trainer refuses other rows.
        train_row_count: Rows to train on.
        heldout_row_count: Rows to judge with.
        sample_count: Held-out prompts that base and adapter answer, for people to compare.
    """

    digest: str
    train_row_count: int
    heldout_row_count: int
    sample_count: int = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsSpec:
    """What the run may take.

    Attributes:
        gpu: Whether a GPU is used.
        cpu_threads: Threads for computing; ``None``: as many as the process may use.
        max_heldout_rows: Rows of the held-out evaluation at most; the first ones count, so that nights can be compared.
        max_new_tokens: Longest generated answer of a sample, in tokens.
    """

    gpu: GpuUse = GpuUse.IF_AVAILABLE
    cpu_threads: int | None = None
    max_heldout_rows: int = 200
    max_new_tokens: int = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """One training run, written by the Airflow side before the trainer starts.

    Attributes:
        training_run_id: Our id of the run.
        adapter_name: What the adapter will be published as.
        base_model: The model that the adapter is for.
        peft_type: As in ``peft.PeftType``, for example ``"LORA"`` or ``"PROMPT_TUNING"``.
        peft_settings: Fields of that type's PEFT config, by PEFT's own names.
        training: Settings of the training loop.
        data: Which frozen rows.
        limits: What the run may take.
        versions: Versions of the packages on the Airflow side, by distribution name.
    """

    training_run_id: str
    adapter_name: str
    base_model: BaseModelSpec
    peft_type: str
    data: DataSpec
    peft_settings: Mapping[str, Any] = field(default_factory=dict)
    training: TrainingSpec = field(default_factory=TrainingSpec)
    limits: LimitsSpec = field(default_factory=LimitsSpec)
    versions: Mapping[str, str] = field(default_factory=dict)
