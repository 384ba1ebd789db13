"""Micro-batches hold no more padding than they must, and padding changes nothing."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from peft_trainer.batches import IGNORED, CausalBatches, CompletionLoss, LengthGroupedSampler, Seq2SeqBatches

Rows = list[dict[str, Any]]


def rows_of(lengths: list[tuple[int, int]], *, seed: int = 0) -> Rows:
    """Return rows of random tokens with these prompt and completion lengths."""
    chance = random.Random(seed)
    return [
        {
            "prompt_ids": [chance.randrange(5, 300) for _ in range(prompt)],
            "completion_ids": [chance.randrange(5, 300) for _ in range(completion)],
            "length": prompt + completion,
        }
        for prompt, completion in lengths
    ]


def uneven_rows(count: int = 64) -> Rows:
    """Return rows as conversations have them: most short, some long."""
    chance = random.Random(3)
    return rows_of([(chance.randint(4, 20), chance.choice([5, 8, 12, 60])) for _ in range(count)])


@pytest.mark.parametrize("label_only_logits", [False, True])
def test_a_batch_is_as_wide_as_its_own_longest_row(label_only_logits: bool) -> None:
    collate = CausalBatches(pad_token_id=0, label_only_logits=label_only_logits)
    assert collate(rows_of([(3, 4), (5, 6)]))["input_ids"].shape == (2, 11)
    assert collate(rows_of([(3, 4), (2, 2)]))["input_ids"].shape == (2, 7)


def test_labels_are_the_completions_and_nothing_else() -> None:
    rows = rows_of([(3, 4), (6, 2)])
    labels = CausalBatches(pad_token_id=0, label_only_logits=False)(rows)["labels"].tolist()
    assert labels == [[IGNORED] * 3 + rows[0]["completion_ids"] + [IGNORED], [IGNORED] * 6 + rows[1]["completion_ids"]]


def test_padding_is_masked() -> None:
    batch = CausalBatches(pad_token_id=0, label_only_logits=False)(rows_of([(3, 4), (2, 2)]))
    assert batch["attention_mask"].tolist() == [[1] * 7, [1] * 4 + [0] * 3]


def test_source_and_target_are_padded_apart() -> None:
    collate = Seq2SeqBatches(pad_token_id=0, decoder_input_ids=lambda labels: labels)
    batch = collate(rows_of([(3, 9), (8, 2)]))
    assert batch["input_ids"].shape == (2, 8)
    assert batch["labels"].shape == (2, 9)


def padding_share(rows: Rows, order: list[int], batch_size: int) -> float:
    """Return which share of the input tokens is padding, when rows come in this order."""
    collate = CausalBatches(pad_token_id=0, label_only_logits=False)
    masks = [
        collate([rows[index] for index in order[begin : begin + batch_size]])["attention_mask"]
        for begin in range(0, len(order), batch_size)
    ]
    return 1 - sum(int(mask.sum()) for mask in masks) / sum(mask.numel() for mask in masks)


def test_rows_grouped_by_length_need_less_padding_than_rows_in_random_order() -> None:
    rows = uneven_rows()
    sampler = LengthGroupedSampler([row["length"] for row in rows], rows_per_update=4, seed=1)
    shuffled = random.Random(1).sample(range(len(rows)), len(rows))
    assert padding_share(rows, list(sampler), 4) < 0.5 * padding_share(rows, shuffled, 4)


def test_each_epoch_has_all_rows_in_its_own_order_that_depends_on_seed_and_epoch_alone() -> None:
    lengths = [row["length"] for row in uneven_rows()]
    sampler = LengthGroupedSampler(lengths, rows_per_update=4, seed=1)
    orders = []
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        orders.append(list(sampler))
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(len(lengths)))
    assert orders[0] != orders[1]
    torch.manual_seed(99)
    resumed = LengthGroupedSampler(lengths, rows_per_update=4, seed=1)
    resumed.set_epoch(1)
    assert list(resumed) == orders[1]


def nats(model: Any, collate: Any, loss: CompletionLoss, rows: Rows) -> float:
    batch = collate(rows)
    labels = batch.pop("labels")
    with torch.no_grad():
        return float(loss.sum(model(**batch, use_cache=False).logits, labels))


@pytest.mark.parametrize("label_only_logits", [False, True], ids=["all-logits", "label-only-logits"])
def test_a_padded_causal_batch_has_the_loss_of_its_rows_one_by_one(tiny_causal: Path, label_only_logits: bool) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_causal).eval()
    collate = CausalBatches(pad_token_id=0, label_only_logits=label_only_logits)
    loss, rows = CompletionLoss(shifted=True), rows_of([(3, 9), (12, 4), (7, 20)])
    one_by_one = sum(nats(model, collate, loss, [row]) for row in rows)
    assert nats(model, collate, loss, rows) == pytest.approx(one_by_one, rel=1e-5)


def test_a_padded_seq2seq_batch_has_the_loss_of_its_rows_one_by_one(tiny_seq2seq: Path) -> None:
    model = AutoModelForSeq2SeqLM.from_pretrained(tiny_seq2seq).eval()
    collate = Seq2SeqBatches(pad_token_id=0, decoder_input_ids=model.prepare_decoder_input_ids_from_labels)
    loss, rows = CompletionLoss(shifted=False), rows_of([(3, 9), (12, 4), (7, 20)])
    one_by_one = sum(nats(model, collate, loss, [row]) for row in rows)
    assert nats(model, collate, loss, rows) == pytest.approx(one_by_one, rel=1e-5)


def test_the_loss_is_the_models_own_when_a_batch_is_a_whole_update(tiny_causal: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_causal).eval()
    batch = CausalBatches(pad_token_id=0, label_only_logits=False)(rows_of([(3, 9), (12, 4)]))
    with torch.no_grad():
        outputs = model(**batch)
    assert float(CompletionLoss(shifted=True)(outputs, batch["labels"])) == pytest.approx(float(outputs.loss), rel=1e-6)


def test_micro_batches_of_an_update_weigh_each_token_alike(tiny_causal: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_causal).eval()
    collate, loss = CausalBatches(pad_token_id=0, label_only_logits=True), CompletionLoss(shifted=True)
    rows = rows_of([(3, 2), (4, 30)])

    def update(batches: list[Rows]) -> float:
        collated = [collate(batch) for batch in batches]
        tokens = sum(int(loss.token_count(batch["labels"])) for batch in collated)
        total = 0.0
        for batch in collated:
            labels = batch.pop("labels")
            with torch.no_grad():
                total += float(loss(model(**batch), labels, tokens))
        return total

    assert update([[rows[0]], [rows[1]]]) == pytest.approx(update([rows]), rel=1e-5)
