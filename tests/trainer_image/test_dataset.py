"""Rows are the ones that the spec is for, and become tokens as the model will see them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from transformers import AutoTokenizer

from peft_trainer.dataset import TextEncoder, tokenise, verify_rows
from peft_trainer.errors import DataEmpty, DataInvalid
from training_contract.documents import read_document
from training_contract.locations import RunDirectory
from training_contract.run_spec import DataSpec, RunSpec

from .conftest import write_rows
from .tiny_models import labelled_rows

MakeRun = Callable[..., RunDirectory]


def data_of(run: RunDirectory) -> DataSpec:
    return read_document(run.spec_file, RunSpec).data


def encoder_for(model: Path, *, chat: bool = True, is_encoder_decoder: bool = False) -> TextEncoder:
    tokenizer = AutoTokenizer.from_pretrained(model)
    if not chat:
        tokenizer.chat_template = None
    return TextEncoder(tokenizer, is_encoder_decoder=is_encoder_decoder)


def test_the_rows_of_the_spec_are_accepted(make_run: MakeRun) -> None:
    run = make_run("unused")
    verify_rows(run.rows_file, data_of(run))


def test_one_changed_letter_is_refused(make_run: MakeRun) -> None:
    run = make_run("unused")
    rows = labelled_rows()
    rows[7]["completion"] += "!"
    write_rows(run, rows)
    with pytest.raises(DataInvalid, match="digest"):
        verify_rows(run.rows_file, data_of(run))


def test_another_order_of_the_rows_is_refused(make_run: MakeRun) -> None:
    run = make_run("unused")
    write_rows(run, labelled_rows()[::-1])
    with pytest.raises(DataInvalid, match="digest"):
        verify_rows(run.rows_file, data_of(run))


def _remove(rows_file: Path) -> None:
    rows_file.unlink()


def _tear(rows_file: Path) -> None:
    rows_file.write_bytes(rows_file.read_bytes()[:-100])


def _drop_column(rows_file: Path) -> None:
    table = pyarrow.parquet.read_table(rows_file)
    pyarrow.parquet.write_table(table.drop_columns(["completion"]), rows_file)


@pytest.mark.parametrize("damage", [_remove, _tear, _drop_column])
def test_a_damaged_file_is_refused(make_run: MakeRun, damage: Callable[[Path], None]) -> None:
    run = make_run("unused")
    damage(run.rows_file)
    with pytest.raises(DataInvalid):
        verify_rows(run.rows_file, data_of(run))


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_a_snapshot_without_one_of_the_splits_is_empty(make_run: MakeRun, split: str) -> None:
    run = make_run("unused", rows=[row for row in labelled_rows() if row["split"] != split])
    with pytest.raises(DataEmpty):
        verify_rows(run.rows_file, data_of(run))


def test_a_completion_ends_with_eos(tiny_causal: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_causal)
    (ids,) = TextEncoder(tokenizer, is_encoder_decoder=False).completion_ids(["turning on the lamp"])
    assert ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(ids[:-1]) == "turning on the lamp"


@pytest.mark.parametrize(
    ("chat", "is_encoder_decoder", "text"),
    [
        pytest.param(True, False, "<user>turn it on<assistant>", id="chat-template"),
        pytest.param(False, False, "turn it on\n", id="no-chat-template"),
        pytest.param(True, True, "turn it on", id="seq2seq"),
    ],
)
def test_a_prompt_is_laid_out_for_its_kind_of_model(
    tiny_causal: Path, chat: bool, is_encoder_decoder: bool, text: str
) -> None:
    encoder = encoder_for(tiny_causal, chat=chat, is_encoder_decoder=is_encoder_decoder)
    (ids,) = encoder.prompt_ids(["turn it on"])
    assert AutoTokenizer.from_pretrained(tiny_causal).decode(ids) == text


def tokenised(run: RunDirectory, model: Path, **changes: Any) -> Any:
    settings = {"max_length": 512, "max_heldout_rows": 200, "sample_count": 2, **changes}
    return tokenise(run.rows_file, encoder_for(model), **settings)


def test_every_row_becomes_tokens_with_its_length(make_run: MakeRun, tiny_causal: Path) -> None:
    rows = tokenised(make_run(tiny_causal), tiny_causal)
    assert (len(rows.train), len(rows.heldout), rows.too_long_row_count) == (48, 12, 0)
    for row in rows.train:
        assert row["length"] == len(row["prompt_ids"]) + len(row["completion_ids"])
    assert [sample.prompt for sample in rows.samples] == [row["prompt"] for row in labelled_rows()[48:50]]


def test_rows_longer_than_max_length_are_left_out_and_counted(make_run: MakeRun, tiny_causal: Path) -> None:
    run = make_run(tiny_causal)
    everything = tokenised(run, tiny_causal)
    lengths = sorted([*everything.train["length"], *everything.heldout["length"]])
    limit = lengths[len(lengths) // 2]
    rows = tokenised(run, tiny_causal, max_length=limit)
    assert rows.too_long_row_count == sum(length > limit for length in lengths)
    assert max(rows.train["length"]) <= limit


def test_no_row_short_enough_is_an_error_that_names_the_limit(make_run: MakeRun, tiny_causal: Path) -> None:
    with pytest.raises(DataEmpty, match="longer than 3 tokens"):
        tokenised(make_run(tiny_causal), tiny_causal, max_length=3)


def test_the_first_heldout_rows_count(make_run: MakeRun, tiny_causal: Path) -> None:
    run = make_run(tiny_causal)
    few, all_of_them = tokenised(run, tiny_causal, max_heldout_rows=5), tokenised(run, tiny_causal)
    assert few.heldout.to_list() == all_of_them.heldout.to_list()[:5]
    assert len(few.train) == 48
