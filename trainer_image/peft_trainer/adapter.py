"""The adapter: from the spec's settings to a wrapped model.

Comes in: ``peft_type`` and ``peft_settings``, named as PEFT names them. Goes out: a PEFT model whose adapter alone is
trained. A further PEFT method is a further row of ``METHODS``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from peft import (
    LoraConfig,
    PeftConfig,
    PromptTuningConfig,
    TaskType,
    get_peft_model,
    get_peft_model_state_dict,
)
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from peft_trainer.base_model import BaseModel
from peft_trainer.errors import AdapterSettingsInvalid, ModelInvalid
from peft_trainer.failure import ran_out_of_memory

logger = logging.getLogger(__name__)

DEFAULT_PROMPT_TEXT: Final = (
    "Answer the request below as the labelled examples do, in their form and with their words: "
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterMethod:
    """One kind of adapter that can be trained.

    Attributes:
        config_class: PEFT's own.
        defaults: What is set unless the spec says otherwise.
        settings: The fields that a spec may set. Left out are those that name files, run code, or change the base
            model's weights, and those that the trainer sets itself.
    """

    config_class: type[PeftConfig]
    defaults: Mapping[str, Any]
    settings: tuple[str, ...]


METHODS: Final[Mapping[str, AdapterMethod]] = {
    "LORA": AdapterMethod(
        config_class=LoraConfig,
        defaults={"r": 16, "lora_alpha": 32, "lora_dropout": 0.05},
        settings=(
            "r",
            "lora_alpha",
            "lora_dropout",
            "target_modules",
            "exclude_modules",
            "bias",
            "use_rslora",
            "use_dora",
            "lora_bias",
            "modules_to_save",
            "layers_to_transform",
            "layers_pattern",
            "rank_pattern",
            "alpha_pattern",
            "fan_in_fan_out",
        ),
    ),
    "PROMPT_TUNING": AdapterMethod(
        config_class=PromptTuningConfig,
        defaults={
            "num_virtual_tokens": 20,
            "prompt_tuning_init": "TEXT",
            "prompt_tuning_init_text": DEFAULT_PROMPT_TEXT,
        },
        settings=("num_virtual_tokens", "prompt_tuning_init", "prompt_tuning_init_text"),
    ),
}
"""The adapters that can be trained, by ``peft_type``."""


def check_settings(peft_type: str, peft_settings: Mapping[str, Any]) -> None:
    """Check settings as far as that can be done without the base model.

    Raises:
        AdapterSettingsInvalid: The type is not supported, a setting is unknown, or PEFT's config refuses a value.
    """
    adapter_config(peft_type, peft_settings, model_type="", is_encoder_decoder=False, directory="unknown")


def adapter_config(
    peft_type: str, peft_settings: Mapping[str, Any], *, model_type: str, is_encoder_decoder: bool, directory: str
) -> PeftConfig:
    """Build PEFT's own configuration.

    Args:
        peft_type: As in ``peft.PeftType``.
        peft_settings: Fields of that type's config.
        model_type: The base model's architecture, for example ``"llama"``.
        is_encoder_decoder: Whether the base model is sequence to sequence.
        directory: The base model's directory, for its tokenizer.

    Raises:
        AdapterSettingsInvalid: The type is not supported, a setting is unknown, or PEFT refuses a value.
    """
    method = _method_of(peft_type)
    unknown = sorted(set(peft_settings) - set(method.settings))
    if unknown:
        raise AdapterSettingsInvalid(
            f"peft_settings has {', '.join(unknown)}, which {peft_type} does not know",
            remedy=f"Use only {', '.join(method.settings)}.",
        )
    settings = {**method.defaults, **peft_settings}
    settings["task_type"] = TaskType.SEQ_2_SEQ_LM if is_encoder_decoder else TaskType.CAUSAL_LM
    if peft_type == "LORA" and settings.get("target_modules") is None:
        known = model_type in TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
        settings["target_modules"] = None if known else "all-linear"
    if peft_type == "PROMPT_TUNING":
        if settings["num_virtual_tokens"] == 0:
            raise AdapterSettingsInvalid("num_virtual_tokens is 0", remedy="Set num_virtual_tokens above 0.")
        if settings["prompt_tuning_init"] == "TEXT":
            settings["tokenizer_name_or_path"] = directory
        else:
            del settings["prompt_tuning_init_text"]
    try:
        return method.config_class(**settings)
    except (ValueError, TypeError) as error:
        raise _refused(peft_type, error) from error


def config_for(base: BaseModel, peft_type: str, peft_settings: Mapping[str, Any]) -> PeftConfig:
    """Build PEFT's own configuration for a loaded base model.

    Raises:
        AdapterSettingsInvalid: The type is not supported, a setting is unknown, or PEFT refuses a value.
    """
    return adapter_config(
        peft_type,
        peft_settings,
        model_type=base.model.config.model_type,
        is_encoder_decoder=base.is_encoder_decoder,
        directory=str(base.files.directory),
    )


def wrap(base: BaseModel, config: PeftConfig) -> Any:
    """Put a new adapter on the base model.

    Returns:
        A ``peft.PeftModel``; only the adapter's parameters require gradients.

    Raises:
        AdapterSettingsInvalid: PEFT refuses the settings for this model.
    """
    model = _wrapped(base.model, config)
    trainable, total = model.get_nb_trainable_parameters()
    logger.info(
        "Adapter: %s, %d trainable parameters of %d (%.3f %%): %s.",
        config.peft_type.value,
        trainable,
        total,
        100 * trainable / total,
        ", ".join(f"{name}={getattr(config, name)}" for name in METHODS[config.peft_type.value].settings),
    )
    return model


def rehearse(peft_type: str, peft_settings: Mapping[str, Any], directory: str) -> None:
    """Build the base model without its weights and wrap it, to hear what PEFT says to the settings.

    Args:
        peft_type: As in ``peft.PeftType``.
        peft_settings: Fields of that type's config.
        directory: The base model's directory; only its configuration is read.

    Raises:
        AdapterSettingsInvalid: PEFT refuses the settings for this model.
        ModelInvalid: transformers does not know such a model.
    """
    try:
        config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
        auto_class = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        with torch.device("meta"):
            model = auto_class.from_config(config, trust_remote_code=False)
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise ModelInvalid(
            f"transformers cannot build the model in {directory}: {error}",
            remedy="Choose a causal or sequence-to-sequence model that needs no code of its own.",
        ) from error
    adapter = adapter_config(
        peft_type,
        peft_settings,
        model_type=config.model_type,
        is_encoder_decoder=bool(config.is_encoder_decoder),
        directory=directory,
    )
    if isinstance(adapter, PromptTuningConfig):
        adapter.prompt_tuning_init = "RANDOM"  # the others look up embeddings, which have no weights here
    with torch.device("meta"):
        _wrapped(model, adapter)


def adapter_state(model: Any, adapter_name: str = "default") -> dict[str, torch.Tensor]:
    """Return a copy of an adapter's tensors, on the CPU.

    Args:
        model: The PEFT model.
        adapter_name: As PEFT knows it; ``"default"`` is the one that ``wrap`` has put there.
    """
    state = get_peft_model_state_dict(model, adapter_name=adapter_name, save_embedding_layers=False)
    return {name: tensor.detach().cpu().clone() for name, tensor in state.items()}


def _method_of(peft_type: str) -> AdapterMethod:
    if peft_type not in METHODS:
        raise AdapterSettingsInvalid(
            f"the peft_type {peft_type!r} is not supported", remedy=f"Use one of {', '.join(METHODS)}."
        )
    return METHODS[peft_type]


def _wrapped(model: Any, config: PeftConfig) -> Any:
    try:
        return get_peft_model(model, config)
    except (ValueError, TypeError, AttributeError, KeyError, RuntimeError) as error:
        if ran_out_of_memory(error):
            raise
        raise _refused(config.peft_type.value, error) from error


def _refused(peft_type: str, error: BaseException) -> AdapterSettingsInvalid:
    return AdapterSettingsInvalid(
        f"PEFT refuses the settings of {peft_type}: {error}",
        remedy="Correct peft_settings; they are PEFT's own fields.",
    )
