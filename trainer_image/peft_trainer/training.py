"""The training loop: transformers' Trainer, with rows grouped by length and the loss on completions.

Comes in: the wrapped model and the tokenised rows. Goes out: the trained model in place, checkpoints beside it, and
what was measured. The Trainer's overhead is not measurable next to the training; what it is given decides the speed: no
padding beyond the micro-batch's longest row, fp32 on a CPU, bf16 on a GPU that has it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME

from peft_trainer.base_model import BaseModel
from peft_trainer.batches import LengthGroupedSampler
from peft_trainer.callbacks import CompleteCheckpoints, StepReports, StopAtSafePoint, TrainingTally
from peft_trainer.checkpoints import Checkpoint
from peft_trainer.errors import TrainingSettingsInvalid
from peft_trainer.hardware import Device
from peft_trainer.reporter import Reporter
from peft_trainer.stopping import StopRequest
from peft_trainer.training_settings import planned_steps, steps_between_checkpoints
from training_contract.run_spec import TrainingSpec

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What was trained, over all attempts of the run.

    Attributes:
        global_step: Optimizer steps.
        train_loss: Mean loss of the steps.
        trained_token_count: Completion tokens that the loss was computed on.
        train_seconds: Duration.
    """

    global_step: int
    train_loss: float
    trained_token_count: int
    train_seconds: float


class LengthGroupedTrainer(Trainer):  # type: ignore[misc]  # transformers is untyped here
    """transformers' Trainer with an order of rows that does not depend on where a run was interrupted."""

    def get_train_dataloader(self) -> Any:
        """Return micro-batches of rows of similar length."""
        loader = DataLoader(
            self.train_dataset,
            batch_size=self.args.per_device_train_batch_size,
            sampler=LengthGroupedSampler(
                self.train_dataset["length"],
                rows_per_update=self.args.per_device_train_batch_size * self.args.gradient_accumulation_steps,
                seed=self.args.seed,
            ),
            collate_fn=self.data_collator,
            pin_memory=self.args.dataloader_pin_memory,
        )
        return self.accelerator.prepare(loader)


def train(
    model: Any,
    base: BaseModel,
    rows: Dataset,
    settings: TrainingSpec,
    *,
    device: Device,
    checkpoints_directory: Path,
    digest: str,
    resume_from: Checkpoint | None,
    reporter: Reporter,
    stop: StopRequest,
) -> Training:
    """Train the adapter in place.

    Args:
        model: The PEFT model.
        base: The base model inside it: its loss, how its rows become batches.
        rows: The rows to train on.
        settings: Settings of the loop.
        device: Where the model is.
        checkpoints_directory: Where checkpoints go.
        digest: ``checkpoints.spec_digest`` of this run.
        resume_from: Where to go on; ``None``: from the beginning.
        reporter: Says how far it is.
        stop: Notes when we are asked to stop.

    Raises:
        TrainingSettingsInvalid: transformers refuses the settings.
        TrainingDiverged: The loss is no finite number.
        Stopped: We were asked to; a checkpoint is saved.
        OSError: The file system refuses.
    """
    if resume_from is not None and resume_from.marker.global_step >= planned_steps(settings, len(rows)):
        return _already_trained(model, resume_from, reporter)
    arguments = _training_arguments(settings, rows, device=device, checkpoints_directory=checkpoints_directory)
    loss = base.loss
    tally = TrainingTally(loss, resume_from)
    trainer = LengthGroupedTrainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        data_collator=base.collate,
        compute_loss_func=loss,
        callbacks=[
            tally,
            StepReports(reporter, tally),
            CompleteCheckpoints(tally, digest=digest),
            StopAtSafePoint(stop),
        ],
    )
    trainer.remove_callback(PrinterCallback)  # it prints every loss to stdout
    logger.info(
        "Training: %d rows, %d optimizer steps of %d x %d rows, a checkpoint every %d steps.",
        len(rows),
        planned_steps(settings, len(rows)),
        settings.gradient_accumulation_steps,
        settings.per_device_train_batch_size,
        arguments.save_steps,
    )
    with stop.deferred():
        trainer.train(resume_from_checkpoint=str(resume_from.directory) if resume_from else None)
    stop.raise_if_requested()
    training = Training(
        global_step=trainer.state.global_step,
        train_loss=_mean_loss(trainer.state.log_history),
        trained_token_count=tally.trained_token_count,
        train_seconds=round(tally.train_seconds, 3),
    )
    logger.info(
        "Trained %d steps in %.1f s: mean loss %.4f, %d completion tokens.",
        training.global_step,
        training.train_seconds,
        training.train_loss,
        training.trained_token_count,
    )
    return training


def _already_trained(model: Any, checkpoint: Checkpoint, reporter: Reporter) -> Training:
    """Take the adapter from a checkpoint of the last step; the Trainer would take one step more."""
    marker = checkpoint.marker
    logger.info("All %d steps were done by an earlier attempt.", marker.global_step)
    reporter.begin_steps(global_step=marker.global_step, max_steps=marker.global_step)
    model.load_adapter(checkpoint.directory, model.active_adapter, is_trainable=True)
    state = TrainerState.load_from_json(checkpoint.directory / TRAINER_STATE_NAME)
    return Training(
        global_step=marker.global_step,
        train_loss=_mean_loss(state.log_history),
        trained_token_count=marker.trained_token_count,
        train_seconds=marker.train_seconds,
    )


def _training_arguments(
    settings: TrainingSpec, rows: Dataset, *, device: Device, checkpoints_directory: Path
) -> TrainingArguments:
    try:
        return TrainingArguments(
            output_dir=str(checkpoints_directory),
            num_train_epochs=settings.num_train_epochs,
            max_steps=-1 if settings.max_steps is None else settings.max_steps,
            learning_rate=settings.learning_rate,
            lr_scheduler_type=settings.lr_scheduler_type,
            warmup_steps=settings.warmup_ratio,  # below 1 it is a share of the steps
            weight_decay=settings.weight_decay,
            max_grad_norm=settings.max_grad_norm,
            per_device_train_batch_size=settings.per_device_train_batch_size,
            gradient_accumulation_steps=settings.gradient_accumulation_steps,
            seed=settings.seed,
            use_cpu=not device.is_gpu,
            bf16=device.bf16,
            save_strategy="steps",
            save_steps=steps_between_checkpoints(settings, len(rows)),
            save_total_limit=2,
            logging_steps=1,
            logging_nan_inf_filter=False,  # it would hide a divergence behind the mean of earlier losses
            remove_unused_columns=False,  # the columns are the collator's, not the model's
            label_names=["labels"],
            report_to="none",
            disable_tqdm=True,
        )
    except ValueError as error:
        raise TrainingSettingsInvalid(
            f"transformers refuses the training settings: {error}", remedy="Correct the training settings of the spec."
        ) from error


def _mean_loss(history: list[dict[str, float]]) -> float:
    losses = [entry["loss"] for entry in history if "loss" in entry]
    return sum(losses) / max(len(losses), 1)
