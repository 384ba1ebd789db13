"""What happens at the steps of transformers' training loop, besides training.

Comes in: the loop's own events. Goes out: progress, an end when the loss is no number, complete checkpoints, and a stop
at the next safe point when that was asked for.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from peft_trainer import checkpoints
from peft_trainer.batches import CompletionLoss
from peft_trainer.checkpoints import Checkpoint
from peft_trainer.errors import TrainingDiverged
from peft_trainer.reporter import Reporter
from peft_trainer.stopping import StopRequest


class TrainingTally(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """Counts what was trained, over all attempts."""

    def __init__(
        self, loss: CompletionLoss, resumed_from: Checkpoint | None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Begin to count.

        Args:
            loss: Knows the tokens of each update.
            resumed_from: Where earlier attempts left off.
            clock: Seconds from any origin, for tests.
        """
        self._loss = loss
        self._clock = clock
        self._began_at = clock()
        self._tokens: Any = resumed_from.marker.trained_token_count if resumed_from else 0
        self._earlier_seconds = resumed_from.marker.train_seconds if resumed_from else 0.0

    @property
    def trained_token_count(self) -> int:
        """Completion tokens that the loss was computed on."""
        return int(self._tokens)

    @property
    def train_seconds(self) -> float:
        """Duration of the training."""
        return self._earlier_seconds + self._clock() - self._began_at

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Add an update's tokens; on a GPU they stay there until someone asks."""
        self._tokens = self._tokens + self._loss.update_token_count


class StepReports(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """Reports each step, and ends a training that has diverged."""

    def __init__(
        self, reporter: Reporter, tally: TrainingTally, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Report to a reporter.

        Args:
            reporter: Says how far the run is.
            tally: Knows the tokens, for their rate.
            clock: Seconds from any origin, for tests.
        """
        self._reporter = reporter
        self._tally = tally
        self._clock = clock
        self._metrics: dict[str, float] = {}
        self._rate_since = (0.0, 0)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Say how many steps there are."""
        self._rate_since = (self._clock(), self._tally.trained_token_count)
        self._reporter.begin_steps(global_step=state.global_step, max_steps=state.max_steps)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Take the newest numbers.

        Raises:
            TrainingDiverged: The loss or the gradient is no finite number; before a checkpoint of it is saved.
        """
        if logs is None or "loss" not in logs:
            return
        self._metrics = {name: float(logs[name]) for name in ("loss", "learning_rate", "grad_norm") if name in logs}
        wild = [f"{name} {value}" for name, value in self._metrics.items() if not math.isfinite(value)]
        if wild:
            raise TrainingDiverged(
                f"the training diverged at step {state.global_step} of {state.max_steps}: {', '.join(wild)}",
                remedy="Lower learning_rate, raise warmup_ratio, or look for broken rows.",
            )

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Say that a step is done."""
        since, tokens = self._rate_since
        seconds = self._clock() - since
        self._reporter.finish_step(
            state.global_step,
            lambda: {
                **self._metrics,
                "tokens_per_second": (self._tally.trained_token_count - tokens) / seconds if seconds > 0 else 0.0,
            },
        )


class CompleteCheckpoints(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """Marks each checkpoint as complete once it is durable."""

    def __init__(self, tally: TrainingTally, *, digest: str) -> None:
        """Write markers for one spec.

        Args:
            tally: What was trained so far.
            digest: ``checkpoints.spec_digest`` of this run.
        """
        self._tally = tally
        self._digest = digest

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Complete the checkpoint that was just written.

        Raises:
            OSError: The file system refuses.
        """
        checkpoints.complete(
            _directory(args, state),
            digest=self._digest,
            global_step=state.global_step,
            trained_token_count=self._tally.trained_token_count,
            train_seconds=self._tally.train_seconds,
        )


class StopAtSafePoint(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """Ends the loop, with a checkpoint, after the step or micro-batch in which a stop was asked for."""

    def __init__(self, stop: StopRequest) -> None:
        """Watch a stop request.

        Args:
            stop: Notes the signals.
        """
        self._stop = stop

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Stop after an optimizer step."""
        self._end_if_requested(args, state, control)

    def on_substep_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Stop after a micro-batch; the checkpoint is of the last whole optimizer step."""
        self._end_if_requested(args, state, control)

    def _end_if_requested(self, args: TrainingArguments, state: TrainerState, control: TrainerControl) -> None:
        if self._stop.requested:
            control.should_save = state.global_step > 0 and not checkpoints.is_complete(_directory(args, state))
            control.should_training_stop = True


def _directory(args: TrainingArguments, state: TrainerState) -> Path:
    return Path(args.output_dir) / f"{checkpoints.PREFIX}{state.global_step}"
