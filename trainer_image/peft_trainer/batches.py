"""Micro-batches without wasted work, and the loss that fits them.

Comes in: rows of token ids (``dataset``). Goes out: tensors padded to the longest row of their own batch only, labels
on the completion only, and one loss that training and evaluation share. Padding is nearly all of what a padded trainer
computes (80 to 90 % on labelled conversations), so rows of similar length are put together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices

IGNORED: Final = -100
"""The label of a position that no loss is computed on."""

Row = Mapping[str, Any]
Batch = dict[str, Any]
Collate = Callable[[Sequence[Row]], Batch]


@dataclass(frozen=True, slots=True, kw_only=True)
class CausalBatches:
    """Puts rows together for a model that continues its prompt.

    Attributes:
        pad_token_id: Fills up shorter rows, on the right; masked, so any id will do.
        label_only_logits: Whether the model can leave out the logits in front of the first label (``logits_to_keep``):
            they are the largest tensor of all.
    """

    pad_token_id: int
    label_only_logits: bool

    def __call__(self, rows: Sequence[Row]) -> Batch:
        """Return ``input_ids``, ``attention_mask`` and ``labels``, each ``(batch, longest row)`` of int64.

        With ``label_only_logits`` the labels begin one position before the first one that counts, and
        ``logits_to_keep`` is their length.
        """
        width = max(len(row["prompt_ids"]) + len(row["completion_ids"]) for row in rows)
        first = min(len(row["prompt_ids"]) for row in rows) - 1 if self.label_only_logits else 0
        labels = [[IGNORED] * len(row["prompt_ids"]) + row["completion_ids"] for row in rows]
        batch: Batch = {
            "input_ids": _padded([row["prompt_ids"] + row["completion_ids"] for row in rows], self.pad_token_id, width),
            "attention_mask": _mask([row["prompt_ids"] + row["completion_ids"] for row in rows], width),
            "labels": _padded(labels, IGNORED, width)[:, max(first, 0) :],
        }
        if self.label_only_logits:
            batch["logits_to_keep"] = batch["labels"].shape[1]
        return batch


@dataclass(frozen=True, slots=True, kw_only=True)
class Seq2SeqBatches:
    """Puts rows together for a model that reads a source and writes a target.

    Attributes:
        pad_token_id: Fills up shorter rows, on the right; masked.
        decoder_input_ids: The model's own way from labels to what its decoder reads
            (``prepare_decoder_input_ids_from_labels``).
    """

    pad_token_id: int
    decoder_input_ids: Callable[[torch.Tensor], torch.Tensor]

    def __call__(self, rows: Sequence[Row]) -> Batch:
        """Return ``input_ids`` and ``attention_mask`` ``(batch, longest source)``, ``labels`` and
        ``decoder_input_ids`` ``(batch, longest target)``, all of int64.
        """  # noqa: D205  # the shapes need the room
        sources = [row["prompt_ids"] for row in rows]
        targets = [row["completion_ids"] for row in rows]
        source_width, target_width = max(map(len, sources)), max(map(len, targets))
        labels = _padded(targets, IGNORED, target_width)
        return {
            "input_ids": _padded(sources, self.pad_token_id, source_width),
            "attention_mask": _mask(sources, source_width),
            "labels": labels,
            "decoder_input_ids": self.decoder_input_ids(labels),
        }


class CompletionLoss:
    """Cross entropy on completion tokens, summed and divided by the tokens of the whole update.

    The mean of micro-batch means would weigh a token by how short the rows beside it are.

    Attributes:
        update_token_count: Completion tokens of the update that was computed last.
    """

    def __init__(self, *, shifted: bool) -> None:
        """Choose what a label means.

        Args:
            shifted: ``True``: the logits at a position predict the label at the next one (causal models).
        """
        self._shifted = shifted
        self.update_token_count: Any = 0

    def __call__(self, outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
        """Return the loss of one micro-batch, as transformers' ``compute_loss_func``.

        Args:
            outputs: The model's, with ``logits`` ``(batch, at least label length, vocabulary)``.
            labels: ``(batch, label length)``, int64.
            num_items_in_batch: Completion tokens of the whole update; ``None``: of this micro-batch.
        """
        count = self.token_count(labels) if num_items_in_batch is None else num_items_in_batch
        self.update_token_count = count
        return self.sum(outputs.logits, labels) / count

    def sum(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the summed cross entropy in nats, fp32.

        Args:
            logits: ``(batch, at least label length, vocabulary)``; what is more, on the left, are virtual tokens.
            labels: ``(batch, label length)``, int64.
        """
        logits = logits[:, -labels.shape[1] :]
        if self._shifted:
            logits, labels = logits[:, :-1], labels[:, 1:]
        return torch.nn.functional.cross_entropy(
            logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED, reduction="sum"
        )

    def token_count(self, labels: torch.Tensor) -> torch.Tensor:
        """Return how many labels the loss is computed on."""
        return (labels[:, 1:] if self._shifted else labels).ne(IGNORED).sum()


class LengthGroupedSampler(Sampler[int]):  # type: ignore[misc]  # torch is untyped here
    """Yields rows of similar length one after the other, in another order every epoch.

    transformers' own ``group_by_length`` draws from the global random state, so that a run which resumes in the middle
    of an epoch would see some rows twice and others not at all. Here the order depends on seed and epoch alone.
    """

    def __init__(self, lengths: Sequence[int], *, rows_per_update: int, seed: int) -> None:
        """Describe the rows.

        Args:
            lengths: In tokens, by row.
            rows_per_update: Rows that should be of similar length.
            seed: For the order.
        """
        self._lengths = list(lengths)
        self._rows_per_update = rows_per_update
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order; accelerate calls this at the start of every epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed + self._epoch)
        return iter(get_length_grouped_indices(self._lengths, self._rows_per_update, generator=generator))


def _padded(rows: Sequence[list[int]], fill: int, width: int) -> torch.Tensor:
    return torch.tensor([row + [fill] * (width - len(row)) for row in rows], dtype=torch.int64)


def _mask(rows: Sequence[list[int]], width: int) -> torch.Tensor:
    return torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], dtype=torch.int64)
