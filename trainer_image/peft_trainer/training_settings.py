"""Whether training settings can work; pure, so that preflight says the same as the training."""

from __future__ import annotations

import math
from typing import Final

from peft_trainer.errors import TrainingSettingsInvalid
from training_contract.run_spec import TrainingSpec

SCHEDULERS: Final = (
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "constant",
    "constant_with_warmup",
    "inverse_sqrt",
)
"""transformers' schedulers that need no settings of their own."""

_CHECKPOINTS_A_RUN: Final = 10
_SHORTEST_ROW_TOKENS: Final = 2


def check_training_settings(training: TrainingSpec) -> None:
    """Refuse settings that cannot work, all of them at once.

    Raises:
        TrainingSettingsInvalid: At least one cannot.
    """
    rules = (
        (math.isfinite(training.num_train_epochs) and training.num_train_epochs > 0, "num_train_epochs", "above 0"),
        (training.max_steps is None or training.max_steps > 0, "max_steps", "above 0, or null"),
        (training.learning_rate > 0, "learning_rate", "above 0"),
        (training.lr_scheduler_type in SCHEDULERS, "lr_scheduler_type", f"one of {', '.join(SCHEDULERS)}"),
        (0 <= training.warmup_ratio < 1, "warmup_ratio", "at least 0 and below 1"),
        (training.weight_decay >= 0, "weight_decay", "at least 0"),
        (training.max_grad_norm >= 0, "max_grad_norm", "at least 0 (0: no clipping)"),
        (training.per_device_train_batch_size > 0, "per_device_train_batch_size", "above 0"),
        (training.gradient_accumulation_steps > 0, "gradient_accumulation_steps", "above 0"),
        (training.per_device_eval_batch_size > 0, "per_device_eval_batch_size", "above 0"),
        (training.max_length >= _SHORTEST_ROW_TOKENS, "max_length", f"at least {_SHORTEST_ROW_TOKENS}"),
        (training.save_steps is None or training.save_steps > 0, "save_steps", "above 0, or null"),
        (0 <= training.seed < 2**32, "seed", "at least 0 and below 2**32"),
    )
    problems = [
        f"{name} is {getattr(training, name)!r} and must be {expected}" for holds, name, expected in rules if not holds
    ]
    if problems:
        raise TrainingSettingsInvalid("; ".join(problems), remedy="Correct the training settings of the spec.")


def planned_steps(training: TrainingSpec, row_count: int) -> int:
    """Return how many optimizer steps a run over ``row_count`` rows takes."""
    if training.max_steps is not None:
        return training.max_steps
    micro_batches = math.ceil(row_count / training.per_device_train_batch_size)
    return math.ceil(training.num_train_epochs * math.ceil(micro_batches / training.gradient_accumulation_steps))


def steps_between_checkpoints(training: TrainingSpec, row_count: int) -> int:
    """Return after how many optimizer steps a checkpoint is saved: as the spec says, else about ten a run."""
    return training.save_steps or max(1, planned_steps(training, row_count) // _CHECKPOINTS_A_RUN)
