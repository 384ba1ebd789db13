"""The training loop goes on where it was interrupted, as if it had not been."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import set_seed

from peft_trainer.adapter import adapter_state, config_for, wrap
from peft_trainer.base_model import load_base_model
from peft_trainer.checkpoints import MARKER_NAME, find_checkpoint, spec_digest
from peft_trainer.dataset import TextEncoder, tokenise
from peft_trainer.errors import Stopped, TrainingSettingsInvalid
from peft_trainer.hardware import Device
from peft_trainer.stopping import StopRequest
from peft_trainer.training import Training, train
from peft_trainer.training_settings import check_training_settings, planned_steps, steps_between_checkpoints
from training_contract.documents import read_document
from training_contract.locations import RunDirectory
from training_contract.run_spec import RunSpec, TrainingSpec

MakeRun = Callable[..., RunDirectory]
CPU = Device(name="CPU", torch_device="cpu", bf16=False)


class StoppingReporter:
    """Takes note of the steps, and asks for a stop after one of them."""

    def __init__(self, stop: StopRequest, after_step: int | None) -> None:
        self._stop = stop
        self._after_step = after_step
        self.steps: list[int] = []
        self.began_at = -1
        self.losses: list[float] = []

    def begin_steps(self, *, global_step: int, max_steps: int) -> None:
        self.began_at = global_step

    def finish_step(self, global_step: int, metrics: Callable[[], Mapping[str, float]]) -> None:
        self.steps.append(global_step)
        self.losses.append(metrics().get("loss", float("nan")))
        if global_step == self._after_step:
            self._stop.requested = True


def train_attempt(
    run: RunDirectory, *, stop_after: int | None = None
) -> tuple[Training | None, dict[str, torch.Tensor], StoppingReporter]:
    """Run the training of one attempt; ``None`` instead of what was trained: it was stopped."""
    spec = read_document(run.spec_file, RunSpec)
    attempt, digest = run.open_attempt(), spec_digest(run)
    base = load_base_model(spec.base_model, CPU)
    rows = tokenise(
        run.rows_file,
        TextEncoder(base.tokenizer, is_encoder_decoder=base.is_encoder_decoder),
        max_length=spec.training.max_length,
        max_heldout_rows=200,
        sample_count=0,
    )
    set_seed(spec.training.seed)
    model = wrap(base, config_for(base, spec.peft_type, spec.peft_settings))
    stop = StopRequest()
    reporter: Any = StoppingReporter(stop, stop_after)
    try:
        training: Training | None = train(
            model,
            base,
            rows.train,
            spec.training,
            device=CPU,
            checkpoints_directory=attempt.checkpoints_directory,
            digest=digest,
            resume_from=find_checkpoint(run, attempt, digest),
            reporter=reporter,
            stop=stop,
        )
    except Stopped:
        training = None
    return training, adapter_state(model), reporter


def start_anew(run: RunDirectory) -> None:
    for attempt in run.attempts():
        shutil.rmtree(attempt.root)


@pytest.mark.parametrize(("peft_type", "gradient_accumulation_steps"), [("LORA", 2), ("PROMPT_TUNING", 1)])
def test_a_run_that_is_stopped_in_mid_epoch_and_resumed_ends_as_if_it_had_never_been(
    make_run: MakeRun, tiny_causal: Path, peft_type: str, gradient_accumulation_steps: int
) -> None:
    settings = {
        "num_train_epochs": 2.0,
        "per_device_train_batch_size": 6,
        "gradient_accumulation_steps": gradient_accumulation_steps,
    }
    run = make_run(tiny_causal, peft_type=peft_type, training=settings)
    whole, expected, _ = train_attempt(run)
    assert whole is not None
    start_anew(run)

    stopped, _, _ = train_attempt(run, stop_after=3)
    resumed, state, reporter = train_attempt(run)

    assert stopped is None
    assert resumed is not None
    assert (reporter.began_at, reporter.steps[0]) == (3, 4)
    assert resumed.global_step == whole.global_step
    assert resumed.trained_token_count == whole.trained_token_count
    assert resumed.train_loss == pytest.approx(whole.train_loss)
    for name, tensor in expected.items():
        torch.testing.assert_close(state[name], tensor)


def test_a_run_that_was_stopped_after_its_last_step_trains_no_more(make_run: MakeRun, tiny_causal: Path) -> None:
    run = make_run(tiny_causal, training={"max_steps": 4})
    stopped, expected, _ = train_attempt(run, stop_after=4)
    resumed, state, reporter = train_attempt(run)
    assert stopped is None
    assert resumed is not None
    assert reporter.steps == []
    assert resumed.global_step == 4
    assert all(torch.equal(state[name], expected[name]) for name in expected)


def test_only_the_last_two_checkpoints_are_kept_and_both_are_complete(make_run: MakeRun, tiny_causal: Path) -> None:
    run = make_run(tiny_causal, training={"max_steps": 6, "save_steps": 2})
    train_attempt(run)
    kept = sorted(run.attempt(1).checkpoints_directory.iterdir())
    assert [directory.name for directory in kept] == ["checkpoint-4", "checkpoint-6"]
    assert all((directory / MARKER_NAME).exists() for directory in kept)
    assert not any((directory / "training_args.bin").exists() for directory in kept)


@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
def test_two_micro_batches_train_as_one_batch_of_twice_the_rows(
    request: pytest.FixtureRequest, make_run: MakeRun, kind: str
) -> None:
    model = request.getfixturevalue(f"tiny_{kind}")
    states = []
    for rows_a_batch, micro_batches in ((8, 1), (4, 2)):
        run = make_run(
            model,
            peft_settings={"lora_dropout": 0.0},
            training={
                "max_steps": 4,
                "per_device_train_batch_size": rows_a_batch,
                "gradient_accumulation_steps": micro_batches,
                "learning_rate": 1e-3,
            },
        )
        states.append(train_attempt(run)[1])
        start_anew(run)
    for name in states[0]:
        torch.testing.assert_close(states[0][name], states[1][name], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "rows", "steps", "between"),
    [
        pytest.param({}, 100, 75, 7, id="three-epochs-of-25"),
        pytest.param({"num_train_epochs": 0.5}, 100, 13, 1, id="half-an-epoch"),
        pytest.param({"gradient_accumulation_steps": 2}, 100, 39, 3, id="13-updates-an-epoch"),
        pytest.param({"max_steps": 20}, 100, 20, 2, id="max-steps"),
        pytest.param({"max_steps": 3}, 100, 3, 1, id="fewer-than-ten"),
        pytest.param({"save_steps": 5}, 100, 75, 5, id="as-the-spec-says"),
    ],
)
def test_about_ten_checkpoints_a_run(settings: dict[str, Any], rows: int, steps: int, between: int) -> None:
    training = TrainingSpec(**settings)
    assert planned_steps(training, rows) == steps
    assert steps_between_checkpoints(training, rows) == between


def test_all_settings_that_cannot_work_are_told_at_once() -> None:
    with pytest.raises(TrainingSettingsInvalid) as caught:
        check_training_settings(TrainingSpec(learning_rate=-1.0, max_length=0, warmup_ratio=1.0, seed=-1))
    assert all(name in str(caught.value) for name in ("learning_rate", "max_length", "warmup_ratio", "seed"))
    check_training_settings(TrainingSpec())
