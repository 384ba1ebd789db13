"""The real command on tiny models: what it leaves behind when all goes well."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from safetensors.torch import load_file

from training_contract.documents import read_document
from training_contract.durable_files import file_sha256
from training_contract.events import Ending, EventReader, Finished, Phase, PhaseStarted, Progress, Started
from training_contract.locations import AttemptDirectory, RunDirectory
from training_contract.process_exit import ProcessExit
from training_contract.result import TrainingResult

LEARNING = {"num_train_epochs": 4.0, "learning_rate": 3e-2, "warmup_ratio": 0.0}


@pytest.fixture(
    params=[
        pytest.param(("causal", "LORA"), id="causal-lora"),
        pytest.param(("causal", "PROMPT_TUNING"), id="causal-prompt_tuning"),
        pytest.param(("seq2seq", "LORA"), id="seq2seq-lora"),
        pytest.param(("seq2seq", "PROMPT_TUNING"), id="seq2seq-prompt_tuning"),
    ],
)
def trained(
    request: pytest.FixtureRequest,
    make_run: Callable[..., RunDirectory],
    run_trainer: Callable[..., subprocess.CompletedProcess[str]],
) -> tuple[AttemptDirectory, subprocess.CompletedProcess[str], str, Path]:
    """A finished run of the real command, one for each kind of model and adapter."""
    kind, peft_type = request.param
    model = request.getfixturevalue(f"tiny_{kind}")
    settings = {"num_virtual_tokens": 8} if peft_type == "PROMPT_TUNING" else {"target_modules": "all-linear"}
    run = make_run(model, peft_type=peft_type, peft_settings=settings, training=LEARNING)
    ended = run_trainer("train", "--run-dir", run.root)
    return run.attempt(1), ended, peft_type, model


def test_a_healthy_run_leaves_a_whole_result(
    trained: tuple[AttemptDirectory, subprocess.CompletedProcess[str], str, Path],
) -> None:
    attempt, ended, peft_type, model = trained
    assert ended.returncode == 0, ended.stderr
    result = read_document(attempt.result_file, TrainingResult)
    check_events(attempt)
    check_result(attempt, result, peft_type, model)
    assert read_document(attempt.process_exit_file, ProcessExit).exit_code == 0
    assert not attempt.failure_file.exists()
    assert not list(attempt.root.glob(".tmp-*"))
    summary = [line for line in attempt.stdout_file.read_text().splitlines() if line.startswith("peft_trainer ")]
    assert len(summary) == 1
    assert 'ending="succeeded"' in summary[0]
    for stage in (
        "Configuration:",
        "Packages:",
        "The snapshot",
        "Base model and tokenizer:",
        "Tokenised",
        "Adapter:",
        "Training:",
        "Memory:",
    ):
        assert stage in attempt.stderr_file.read_text()


def check_events(attempt: AttemptDirectory) -> None:
    """One start, one end, every phase in order, percentages that never go back."""
    events = [read.event for read in EventReader(attempt.events_file).read_new()]
    assert isinstance(events[0], Started)
    assert sum(isinstance(event, Started) for event in events) == 1
    assert [event for event in events if isinstance(event, Finished)] == [Finished(ending=Ending.SUCCEEDED)]
    assert isinstance(events[-1], Finished)
    assert [event.phase for event in events if isinstance(event, PhaseStarted)] == list(Phase)[1:]
    progress = [event for event in events if isinstance(event, Progress)]
    assert all(earlier.progress_percentage <= later.progress_percentage for earlier, later in pairwise(progress))
    steps = [event for event in progress if event.phase is Phase.TRAINING and event.global_step]
    assert steps[-1].global_step == steps[-1].max_steps
    assert {"loss", "learning_rate", "tokens_per_second", "memory_bytes"} <= set(steps[-1].metrics)


def check_result(attempt: AttemptDirectory, result: TrainingResult, peft_type: str, model: Path) -> None:
    """Losses, counts and hashes that can be true."""
    metrics = result.metrics
    if peft_type == "LORA":
        assert metrics.adapter_heldout_loss < 0.9 * metrics.base_heldout_loss
    assert metrics.adapter_heldout_loss != metrics.base_heldout_loss
    assert (metrics.global_step, metrics.trained_row_count, metrics.heldout_row_count) == (48, 48, 12)
    assert metrics.too_long_row_count == 0
    assert metrics.trained_token_count > 4 * 48
    assert metrics.train_seconds > 0
    assert metrics.trainable_parameter_count > 0
    assert len(result.samples) == 2
    assert "adapter_model.safetensors" in result.adapter_files
    assert "tokenizer.json" in result.adapter_files
    for name, entry in result.adapter_files.items():
        file = attempt.adapter_directory / name
        assert file_sha256(file) == entry.sha256
        assert file.stat().st_size == entry.size_bytes
        assert file.stat().st_mode & 0o777 == 0o660
    assert load_file(attempt.adapter_directory / "adapter_model.safetensors")
    config = json.loads((attempt.adapter_directory / "adapter_config.json").read_text())
    assert config["peft_type"] == peft_type
    assert config["base_model_name_or_path"] == str(model)
