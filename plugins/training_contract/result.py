"""``result.json``: what a run produced. Its presence, whole and valid, is what success means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """One file of an adapter."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One held-out prompt with the answers of base and adapter, for people to compare."""

    prompt: str
    expected: str
    base_answer: str
    adapter_answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingMetrics:
    """What was measured.

    Attributes:
        base_heldout_loss: Mean cross entropy per completion token (nats) of the base model on the held-out rows.
        adapter_heldout_loss: The same of the base model with the trained adapter.
        train_loss: Mean training loss over the run.
        global_step: Optimizer steps done.
        trained_row_count: Rows the adapter was trained on, each counted once.
        trained_token_count: Completion tokens that the loss was computed on, over all epochs.
        heldout_row_count: Rows the two held-out losses are over.
        too_long_row_count: Rows left out because they are longer than ``max_length``.
        trainable_parameter_count: Parameters of the adapter.
        train_seconds: Duration of the training loop.
        peak_memory_bytes: Largest resident memory of the process.
        peak_gpu_memory_bytes: Largest GPU memory allocated; ``None`` without a GPU.
    """

    base_heldout_loss: float
    adapter_heldout_loss: float
    train_loss: float
    global_step: int
    trained_row_count: int
    trained_token_count: int
    heldout_row_count: int
    too_long_row_count: int
    trainable_parameter_count: int
    train_seconds: float
    peak_memory_bytes: int
    peak_gpu_memory_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingResult:
    """The trainer's last word on a run that succeeded.

    Attributes:
        training_run_id: As in the spec.
        peft_type: As in the spec.
        base_model_name_or_path: As in the spec.
        base_model_revision: The commit that was loaded; ``None`` for a directory.
        data_digest: Digest of the rows that were read.
        adapter_files: The adapter's files by their path inside ``adapter/``.
        metrics: What was measured.
        samples: Held-out prompts answered by base and adapter.
        versions: Versions of the trainer's packages, by distribution name.
        finished_at: UTC ISO 8601.
    """

    training_run_id: str
    peft_type: str
    base_model_name_or_path: str
    data_digest: str
    adapter_files: Mapping[str, FileEntry]
    metrics: TrainingMetrics
    finished_at: str
    base_model_revision: str | None = None
    samples: tuple[Sample, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
