"""The spec's settings become PEFT's own configuration, or are refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig, PromptTuningConfig
from transformers import set_seed

from peft_trainer.adapter import (
    METHODS,
    adapter_config,
    adapter_state,
    check_settings,
    config_for,
    rehearse,
    wrap,
)
from peft_trainer.base_model import BaseModel, load_base_model
from peft_trainer.errors import AdapterSettingsInvalid
from peft_trainer.hardware import Device
from training_contract.run_spec import BaseModelSpec

CPU = Device(name="CPU", torch_device="cpu", bf16=False)


def load(model: Path) -> BaseModel:
    return load_base_model(BaseModelSpec(base_model_name_or_path=str(model)), CPU)


def test_the_defaults_of_lora() -> None:
    config = adapter_config("LORA", {}, model_type="llama", is_encoder_decoder=False, directory="/model")
    assert isinstance(config, LoraConfig)
    assert (config.r, config.lora_alpha, config.lora_dropout, config.target_modules) == (16, 32, 0.05, None)


def test_lora_takes_all_linear_layers_where_peft_knows_no_better() -> None:
    config = adapter_config("LORA", {}, model_type="unheard-of", is_encoder_decoder=False, directory="/model")
    assert config.target_modules == "all-linear"


def test_prompt_tuning_starts_from_a_text_or_at_random() -> None:
    text = adapter_config("PROMPT_TUNING", {}, model_type="llama", is_encoder_decoder=False, directory="/model")
    assert isinstance(text, PromptTuningConfig)
    assert (text.num_virtual_tokens, text.prompt_tuning_init, text.tokenizer_name_or_path) == (20, "TEXT", "/model")
    random = adapter_config(
        "PROMPT_TUNING",
        {"prompt_tuning_init": "RANDOM"},
        model_type="llama",
        is_encoder_decoder=False,
        directory="/model",
    )
    assert (random.prompt_tuning_init, random.prompt_tuning_init_text) == ("RANDOM", None)


def test_an_unknown_type_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(AdapterSettingsInvalid, match="POLY") as caught:
        check_settings("POLY", {})
    assert all(peft_type in caught.value.remedy for peft_type in METHODS)


@pytest.mark.parametrize("name", ["rank", "init_lora_weights", "base_model_name_or_path", "inference_mode"])
def test_a_setting_that_is_unknown_or_not_the_specs_to_set_is_refused_by_name(name: str) -> None:
    with pytest.raises(AdapterSettingsInvalid, match=name) as caught:
        check_settings("LORA", {name: 8})
    assert "lora_alpha" in caught.value.remedy


@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
@pytest.mark.parametrize(
    ("peft_type", "settings"),
    [
        pytest.param("LORA", {"r": 0}, id="rank-of-nothing"),
        pytest.param("LORA", {"r": "16"}, id="rank-as-text"),
        pytest.param("LORA", {"target_modules": ["no_such_layer"]}, id="no-such-layer"),
        pytest.param("PROMPT_TUNING", {"num_virtual_tokens": -1}, id="fewer-than-no-tokens"),
        pytest.param("PROMPT_TUNING", {"num_virtual_tokens": "many"}, id="tokens-as-text"),
    ],
)
def test_the_rehearsal_hears_what_the_real_wrapping_would_say(
    request: pytest.FixtureRequest, kind: str, peft_type: str, settings: dict[str, Any]
) -> None:
    model = request.getfixturevalue(f"tiny_{kind}")
    with pytest.raises(AdapterSettingsInvalid):
        rehearse(peft_type, settings, str(model))
    base = load(model)
    with pytest.raises(AdapterSettingsInvalid):
        wrap(base, config_for(base, peft_type, settings))


@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
@pytest.mark.parametrize("peft_type", METHODS)
def test_the_rehearsal_accepts_what_works(request: pytest.FixtureRequest, kind: str, peft_type: str) -> None:
    rehearse(peft_type, {}, str(request.getfixturevalue(f"tiny_{kind}")))


@pytest.mark.parametrize("peft_type", METHODS)
def test_only_the_adapter_is_trained_and_the_same_seed_gives_the_same_adapter(
    tiny_causal: Path, peft_type: str
) -> None:
    states = []
    for _ in range(2):
        base = load(tiny_causal)
        set_seed(3)
        model = wrap(base, config_for(base, peft_type, {}))
        trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        assert trainable
        assert all("lora_" in name or "prompt_encoder" in name for name in trainable)
        states.append(adapter_state(model))
    assert states[0].keys() == states[1].keys()
    assert all(bool((states[0][name] == states[1][name]).all()) for name in states[0])
