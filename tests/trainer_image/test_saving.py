"""A saved adapter is whole and trained, or it is not there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from peft_trainer import saving
from peft_trainer.adapter import adapter_config, adapter_state, wrap
from peft_trainer.base_model import load_base_model
from peft_trainer.errors import AdapterUnusable
from peft_trainer.hardware import Device
from peft_trainer.saving import check_adapter, save_adapter
from training_contract.locations import AttemptDirectory, RunDirectory
from training_contract.run_spec import BaseModelSpec

CPU = Device(name="CPU", torch_device="cpu", bf16=False)
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(params=["LORA", "PROMPT_TUNING"])
def wrapped(request: pytest.FixtureRequest, tiny_causal: Path) -> Any:
    """A model with an adapter that is as it was made."""
    base = load_base_model(BaseModelSpec(base_model_name_or_path=str(tiny_causal)), CPU)
    config = adapter_config(request.param, {}, model_type="llama", is_encoder_decoder=False, directory=str(tiny_causal))
    return wrap(base, config), base.tokenizer


@pytest.fixture
def attempt(tmp_path: Path) -> AttemptDirectory:
    """An attempt without anything in it."""
    return RunDirectory(tmp_path).open_attempt()


def train_a_little(model: Any) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.01)


def save(wrapped: Any, attempt: AttemptDirectory, initial_state: dict[str, torch.Tensor]) -> Any:
    model, tokenizer = wrapped
    return save_adapter(
        model,
        tokenizer,
        attempt,
        base_model=BaseModelSpec(base_model_name_or_path="someone/tiny", revision="main"),
        base_model_revision="c" * 40,
        initial_state=initial_state,
    )


def test_a_trained_adapter_is_saved_for_the_model_that_the_spec_names(wrapped: Any, attempt: AttemptDirectory) -> None:
    initial = adapter_state(wrapped[0])
    train_a_little(wrapped[0])
    files = save(wrapped, attempt, initial)
    assert {WEIGHTS, "adapter_config.json", "tokenizer.json", "chat_template.jinja"} <= set(files)
    config = (attempt.adapter_directory / "adapter_config.json").read_text()
    assert '"someone/tiny"' in config
    assert "c" * 40 in config
    assert str(attempt.root) not in config


def test_an_adapter_that_is_as_it_was_made_is_refused(wrapped: Any, attempt: AttemptDirectory) -> None:
    with pytest.raises(AdapterUnusable, match="unchanged"):
        save(wrapped, attempt, adapter_state(wrapped[0]))
    assert list(attempt.root.iterdir()) == []


def test_an_adapter_with_a_number_that_is_none_is_refused(wrapped: Any, attempt: AttemptDirectory) -> None:
    initial = adapter_state(wrapped[0])
    with torch.no_grad():
        next(parameter for parameter in wrapped[0].parameters() if parameter.requires_grad)[0, 0] = float("nan")
    with pytest.raises(AdapterUnusable, match="not finite"):
        save(wrapped, attempt, initial)
    assert list(attempt.root.iterdir()) == []


def _cut(weights: Path) -> None:
    weights.write_bytes(weights.read_bytes()[:-3])


def _empty(weights: Path) -> None:
    weights.write_bytes(b"")


def _other_numbers(weights: Path) -> None:
    save_file({name: tensor + 1 for name, tensor in load_file(weights).items()}, weights)


def _fewer_tensors(weights: Path) -> None:
    save_file(dict(list(load_file(weights).items())[1:]), weights)


@pytest.mark.parametrize("damage", [_cut, _empty, _other_numbers, _fewer_tensors])
def test_what_was_written_wrongly_is_told_by_reading_it_back(
    wrapped: Any, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    model, _ = wrapped
    initial = adapter_state(model)
    train_a_little(model)
    model.save_pretrained(tmp_path)
    check_adapter(tmp_path, model, initial)
    damage(tmp_path / WEIGHTS)
    with pytest.raises(AdapterUnusable):
        check_adapter(tmp_path, model, initial)


def test_the_check_leaves_the_model_as_it_was(wrapped: Any, tmp_path: Path) -> None:
    model, _ = wrapped
    initial = adapter_state(model)
    train_a_little(model)
    trained = adapter_state(model)
    model.save_pretrained(tmp_path)
    check_adapter(tmp_path, model, initial)
    assert list(model.peft_config) == ["default"]
    assert all(torch.equal(tensor, trained[name]) for name, tensor in adapter_state(model).items())


def test_a_disk_that_fills_up_leaves_nothing(
    wrapped: Any, attempt: AttemptDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(root: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saving, "flush_tree", refuse)
    initial = adapter_state(wrapped[0])
    train_a_little(wrapped[0])
    with pytest.raises(OSError, match="No space"):
        save(wrapped, attempt, initial)
    assert list(attempt.root.iterdir()) == []
