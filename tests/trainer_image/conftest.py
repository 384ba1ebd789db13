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

from training_contract.documents import write_document
from training_contract.locations import RunDirectory
from training_contract.run_spec import BaseModelSpec, DataSpec, GpuUse, LimitsSpec, RunSpec, TrainingSpec
from training_contract.snapshot import ROW_COLUMNS, RowsDigest

from .tiny_models import build_causal, build_seq2seq, labelled_rows

os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"  # before the libraries read it

REPOSITORY = Path(__file__).resolve().parents[2]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave the libraries' warnings to each other alone; skip, aloud, what needs a GPU where there is none."""
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a GPU, and torch finds none"))
        if Path(item.fspath).parent == Path(__file__).parent:
            item.add_marker(pytest.mark.filterwarnings("default", "ignore::FutureWarning"), append=False)


def write_rows(run: RunDirectory, rows: list[dict[str, str]]) -> str:
    """Write a snapshot's rows and return their digest."""
    run.snapshot_directory.mkdir(exist_ok=True)
    table = pyarrow.table({column: [row[column] for row in rows] for column in ROW_COLUMNS})
    pyarrow.parquet.write_table(table, run.rows_file)
    digest = RowsDigest()
    for row in rows:
        digest.add(row)
    return str(digest)


@pytest.fixture(scope="session")
def tiny_causal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A causal model with a chat template, untrained."""
    directory = tmp_path_factory.mktemp("tiny-causal")
    build_causal(directory)
    return directory


@pytest.fixture(scope="session")
def tiny_seq2seq(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sequence-to-sequence model, untrained."""
    directory = tmp_path_factory.mktemp("tiny-seq2seq")
    build_seq2seq(directory)
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
