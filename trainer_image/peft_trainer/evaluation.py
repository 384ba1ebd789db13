"""The judgement: how well a model predicts the held-out completions, and what it answers.

Comes in: the base model, or the same with the adapter; one code for both, so that the two numbers can be compared. Goes
out: the mean cross entropy per completion token, and greedy answers for people to read.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from transformers import GenerationConfig

from peft_trainer.base_model import BaseModel
from peft_trainer.dataset import HeldoutText, TextEncoder
from peft_trainer.errors import TrainingDiverged

logger = logging.getLogger(__name__)

Advance = Callable[[int, int], None]
"""Called with how many parts are done, of how many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What was measured on the held-out rows.

    Attributes:
        loss: Mean cross entropy per completion token, in nats.
        row_count: Rows.
        answers: Greedy answers to the sample prompts, in their order.
    """

    loss: float
    row_count: int
    answers: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluator:
    """Judges models on the same held-out rows.

    Attributes:
        base: The base model: its loss, its tokenizer, how its rows become batches.
        encoder: How prompts become token ids.
        rows: The held-out rows.
        samples: Those that are answered.
        batch_size: Rows a batch.
        max_new_tokens: Longest answer.
    """

    base: BaseModel
    encoder: TextEncoder
    rows: Dataset
    samples: Sequence[HeldoutText]
    batch_size: int
    max_new_tokens: int

    def evaluate(self, name: str, model: Any, advance: Advance) -> Evaluation:
        """Judge a model.

        Args:
            name: What it is, for the log.
            model: The base model, or the PEFT model around it.
            advance: Told how far it is; may raise to stop.

        Raises:
            TrainingDiverged: The loss is not a finite number.
        """
        model.eval()
        with torch.no_grad():
            loss = self._heldout_loss(model, advance)
            answers = tuple(self._answer(model, sample.prompt) for sample in self.samples)
        if not math.isfinite(loss):
            raise TrainingDiverged(
                f"the loss of the {name} on the held-out rows is {loss}",
                remedy="Lower learning_rate; check that the base model is sound.",
            )
        logger.info("Held-out loss of the %s: %.4f nats a token, over %d rows.", name, loss, len(self.rows))
        return Evaluation(loss=loss, row_count=len(self.rows), answers=answers)

    def _heldout_loss(self, model: Any, advance: Advance) -> float:
        loss, collate, device = self.base.loss, self.base.collate, self.base.model.device
        lengths = self.rows["length"]
        order = sorted(range(len(self.rows)), key=lambda index: lengths[index], reverse=True)
        nats, tokens = 0.0, 0
        for begin in range(0, len(order), self.batch_size):
            rows = [self.rows[index] for index in order[begin : begin + self.batch_size]]
            batch = {
                name: value.to(device) if torch.is_tensor(value) else value for name, value in collate(rows).items()
            }
            labels = batch.pop("labels")
            nats += float(loss.sum(model(**batch, use_cache=False).logits, labels))
            tokens += int(loss.token_count(labels))
            advance(begin + len(rows), len(order))
        return nats / tokens

    def _answer(self, model: Any, prompt: str) -> str:
        return greedy_answer(
            model,
            self.base.tokenizer,
            self.encoder,
            prompt,
            is_encoder_decoder=self.base.is_encoder_decoder,
            max_new_tokens=self.max_new_tokens,
        )


def greedy_answer(
    model: Any, tokenizer: Any, encoder: TextEncoder, prompt: str, *, is_encoder_decoder: bool, max_new_tokens: int
) -> str:
    """Return the most likely answer to a prompt, without special tokens.

    Args:
        model: A model of transformers or PEFT, in evaluation mode.
        tokenizer: Its tokenizer.
        encoder: How prompts become token ids.
        prompt: What is asked.
        is_encoder_decoder: Whether the model's output is the answer alone, rather than prompt and answer.
        max_new_tokens: Longest answer.
    """
    (prompt_ids,) = encoder.prompt_ids([prompt])
    input_ids = torch.tensor([prompt_ids], device=model.device)
    settings = GenerationConfig(
        do_sample=False,
        num_beams=1,
        use_cache=True,
        max_new_tokens=max_new_tokens,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=model.generation_config.eos_token_id or tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
        decoder_start_token_id=model.generation_config.decoder_start_token_id,
    )
    with torch.no_grad():
        output = model.generate(
            input_ids=input_ids,
            attention_mask=torch.ones_like(input_ids),
            generation_config=settings,
        )[0].tolist()
    begins_at = len(prompt_ids) if not is_encoder_decoder and output[: len(prompt_ids)] == prompt_ids else 0
    answer: str = tokenizer.decode(output[begins_at:], skip_special_tokens=True)
    return answer.strip()
