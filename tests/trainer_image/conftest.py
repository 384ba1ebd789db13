"""Tiny models on the disk and run directories that train them in seconds."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from training_contract.documents import write_document
from training_contract.locations import RunDirectory
from training_contract.run_spec import BaseModelSpec, DataSpec, GpuUse, LimitsSpec, RunSpec, TrainingSpec
from training_contract.snapshot import ROW_COLUMNS, RowsDigest

os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"  # before the libraries read it

REPOSITORY = Path(__file__).resolve().parents[2]
PAD, EOS, UNK = "<pad>", "<eos>", "<unk>"
CHAT_TEMPLATE = (
    "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
ROOMS = ("kitchen", "hall", "attic", "cellar", "garden", "study")
THINGS = ("light", "lamp", "heater", "fan", "blind", "radio")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave the libraries' warnings to each other alone; the rest is shown."""
    for item in items:
        if Path(item.fspath).parent == Path(__file__).parent:
            item.add_marker(pytest.mark.filterwarnings("default", "ignore::FutureWarning"), append=False)


def labelled_rows(train: int = 48, heldout: int = 12) -> list[dict[str, str]]:
    """Return rows of very different lengths whose completions are easy to learn."""
    rows = []
    for index in range(train + heldout):
        room, thing = ROOMS[index % 6], THINGS[(index // 6) % 6]
        politeness = "please " * (index % 9)
        rows.append(
            {
                "source_id": str(index),
                "created_at": f"2026-11-01T00:{index // 60:02d}:{index % 60:02d}.000000+00:00",
                "prompt": f"{politeness}turn on the {thing} in the {room}",
                "completion": f"turning on the {thing}" + f" and the {thing}" * (index % 5),
                "split": "train" if index < train else "heldout",
            }
        )
    return rows


def write_rows(run: RunDirectory, rows: list[dict[str, str]]) -> str:
    """Write a snapshot's rows and return their digest."""
    run.snapshot_directory.mkdir(exist_ok=True)
    table = pyarrow.table({column: [row[column] for row in rows] for column in ROW_COLUMNS})
    pyarrow.parquet.write_table(table, run.rows_file)
    digest = RowsDigest()
    for row in rows:
        digest.add(row)
    return str(digest)


def _trained_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=384,
        special_tokens=[PAD, EOS, UNK, "<user>", "<assistant>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [row[column] for row in labelled_rows() for column in ("prompt", "completion")]
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


@pytest.fixture(scope="session")
def tiny_causal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A causal model with a chat template, untrained."""
    directory = tmp_path_factory.mktemp("tiny-causal")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_trained_tokenizer(), pad_token=PAD, eos_token=EOS, unk_token=UNK, chat_template=CHAT_TEMPLATE
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=256,
            initializer_range=0.3,  # an untrained head needs room to be steered by an adapter
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
        )
    )
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def tiny_seq2seq(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sequence-to-sequence model, untrained."""
    directory = tmp_path_factory.mktemp("tiny-seq2seq")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_trained_tokenizer(), pad_token=PAD, eos_token=EOS, unk_token=UNK
    )
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=32,
            d_kv=8,
            d_ff=64,
            num_layers=2,
            num_heads=4,
            dropout_rate=0.0,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            decoder_start_token_id=tokenizer.pad_token_id,
            tie_word_embeddings=False,
        )
    )
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture
def tiny_model(request: pytest.FixtureRequest) -> Path:
    """The model that a test is parametrised with: ``"causal"`` or ``"seq2seq"``."""
    model: Path = request.getfixturevalue(f"tiny_{request.param}")
    return model


MakeRun = Callable[..., RunDirectory]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Returns a function that writes a run directory: ``make_run(model, peft_type="LORA", training={...}, ...)``."""

    def make(
        model: Path | str,
        *,
        peft_type: str = "LORA",
        peft_settings: Mapping[str, Any] | None = None,
        training: Mapping[str, Any] | None = None,
        base_model: Mapping[str, Any] | None = None,
        data: Mapping[str, Any] | None = None,
        limits: Mapping[str, Any] | None = None,
        rows: list[dict[str, str]] | None = None,
    ) -> RunDirectory:
        run = RunDirectory(tmp_path / "run")
        run.root.mkdir(exist_ok=True)
        rows = labelled_rows() if rows is None else rows
        digest = write_rows(run, rows)
        splits = [row["split"] for row in rows]
        spec = RunSpec(
            training_run_id="0123456789abcdef",
            adapter_name="assistant",
            base_model=replace(BaseModelSpec(base_model_name_or_path=str(model)), **(base_model or {})),
            peft_type=peft_type,
            peft_settings=peft_settings or {},
            training=replace(
                TrainingSpec(num_train_epochs=1.0, learning_rate=1e-2, max_length=96, seed=7), **(training or {})
            ),
            data=replace(
                DataSpec(
                    digest=digest,
                    train_row_count=splits.count("train"),
                    heldout_row_count=splits.count("heldout"),
                    sample_count=2,
                ),
                **(data or {}),
            ),
            limits=replace(LimitsSpec(gpu=GpuUse.NEVER, cpu_threads=1, max_new_tokens=8), **(limits or {})),
        )
        write_document(run.spec_file, spec)
        return run

    return make


def trainer_environment() -> dict[str, str]:
    """Return the environment of a trainer that runs from the sources."""
    return {
        **os.environ,
        "PYTHONPATH": f"{REPOSITORY / 'plugins'}:{REPOSITORY / 'trainer_image'}",
        "PYTHONSAFEPATH": "1",
    }


@pytest.fixture
def run_trainer() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Returns a function that runs the real command to its end: ``run_trainer("train", "--run-dir", directory)``."""

    def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "peft_trainer", *map(str, arguments)],
            env={**trainer_environment(), **environment},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run


@pytest.fixture
def in_process() -> Iterator[None]:
    """Undoes what the trainer does to its process: signal handlers, log handlers, warning filters, environment."""
    signals = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    environment, handlers, level = dict(os.environ), logging.root.handlers[:], logging.root.level
    with warnings.catch_warnings():
        yield
    logging.captureWarnings(False)
    logging.root.handlers[:], logging.root.level = handlers, level
    os.environ.clear()
    os.environ.update(environment)
    for number, handler in signals.items():
        signal.signal(number, handler)
