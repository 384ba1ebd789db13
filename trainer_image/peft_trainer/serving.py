"""A published adapter, loaded and ready to answer; the small reader that a service starts from.

Comes in: the directory of published adapters and a name. Goes out: model, tokenizer and manifest of what ``latest``
stood for when it was asked, every file checked against its hash::

    adapter = load_latest(Path("adapters"), "assistant")
    print(adapter.answer("Turn the kitchen light on"))
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from peft_trainer.dataset import TextEncoder
from peft_trainer.evaluation import greedy_answer
from training_contract.adapter_manifest import AdapterManifest, read_verified_manifest, resolve_latest


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedAdapter:
    """A base model with one version of an adapter.

    Attributes:
        model: The PEFT model, in evaluation mode.
        tokenizer: The tokenizer that was published with the adapter.
        manifest: What the adapter is and what it was trained on.
    """

    model: Any
    tokenizer: Any
    manifest: AdapterManifest

    def answer(self, prompt: str, max_new_tokens: int = 64) -> str:
        """Return the adapter's most likely answer, prompted as in training.

        Args:
            prompt: What is asked.
            max_new_tokens: Longest answer.
        """
        is_encoder_decoder = bool(self.model.config.is_encoder_decoder)
        return greedy_answer(
            self.model,
            self.tokenizer,
            TextEncoder(self.tokenizer, is_encoder_decoder=is_encoder_decoder),
            prompt,
            is_encoder_decoder=is_encoder_decoder,
            max_new_tokens=max_new_tokens,
        )

    def base_answer(self, prompt: str, max_new_tokens: int = 64) -> str:
        """Return what the base model answers without the adapter, prompted the same way.

        Args:
            prompt: What is asked.
            max_new_tokens: Longest answer.
        """
        is_encoder_decoder = bool(self.model.config.is_encoder_decoder)
        with self.model.disable_adapter():
            return greedy_answer(
                self.model.get_base_model(),
                self.tokenizer,
                TextEncoder(self.tokenizer, is_encoder_decoder=is_encoder_decoder),
                prompt,
                is_encoder_decoder=is_encoder_decoder,
                max_new_tokens=max_new_tokens,
            )


def load_latest(
    adapters_directory: Path,
    adapter_name: str,
    *,
    base_model: str | None = None,
    cache_directory: Path | None = None,
    local_files_only: bool = True,
) -> LoadedAdapter:
    """Load the newest published version of an adapter.

    Args:
        adapters_directory: Where adapters are published.
        adapter_name: Which one.
        base_model: The base model's directory or hub id here; ``None``: as in the manifest.
        cache_directory: Hub cache, as the setting ``model_cache_directory``; ``None``: the library's own.
        local_files_only: Whether the base model must be here already.

    Raises:
        FileNotFoundError: Nothing was published under this name.
        ContractError: A file is not the one that was published.
        OSError: The base model is not here.
    """
    version = resolve_latest(adapters_directory, adapter_name)
    manifest = read_verified_manifest(version)
    source = {
        "pretrained_model_name_or_path": base_model or manifest.base_model_name_or_path,
        "revision": None if base_model else manifest.base_model_revision,
        "cache_dir": cache_directory,
        "local_files_only": local_files_only,
        "trust_remote_code": False,
    }
    if source["revision"] is None:
        del source["revision"]
    config = AutoConfig.from_pretrained(**source)
    auto_class = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    base = auto_class.from_pretrained(**source, config=config, use_safetensors=True, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(version, local_files_only=True, trust_remote_code=False)
    model = PeftModel.from_pretrained(base, version, local_files_only=True)
    return LoadedAdapter(model=model.eval(), tokenizer=tokenizer, manifest=manifest)
