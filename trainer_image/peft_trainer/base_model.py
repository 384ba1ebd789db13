"""The base model and its tokenizer: found first (``model_location``), loaded after, safetensors only.

Comes in: the spec's base model. Goes out: a frozen model on its device, and where it came from: a directory, the cache
or a download. Nothing is loaded before its files are known to be whole, so that what is wrong is said in our words.
"""

from __future__ import annotations

import inspect
import logging
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from peft_trainer.batches import CausalBatches, Collate, CompletionLoss, Seq2SeqBatches
from peft_trainer.errors import ModelInvalid
from peft_trainer.hardware import Device
from peft_trainer.model_files import ModelFiles
from peft_trainer.model_location import ModelSource, locate
from training_contract.run_spec import BaseModelSpec

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseModel:
    """A base model that is ready to be wrapped.

    Attributes:
        model: A model of transformers, frozen, on its device.
        tokenizer: Its tokenizer; it has a pad token.
        files: Its files.
        source: Where they came from.
        is_encoder_decoder: Whether it reads a source and writes a target, rather than continuing a prompt.
    """

    model: Any
    tokenizer: Any
    files: ModelFiles
    source: ModelSource
    is_encoder_decoder: bool

    @property
    def loss(self) -> CompletionLoss:
        """The loss that fits its logits."""
        return CompletionLoss(shifted=not self.is_encoder_decoder)

    @property
    def collate(self) -> Collate:
        """How rows become batches for it."""
        pad_token_id = int(self.tokenizer.pad_token_id)
        if self.is_encoder_decoder:
            return Seq2SeqBatches(
                pad_token_id=pad_token_id, decoder_input_ids=self.model.prepare_decoder_input_ids_from_labels
            )
        parameters = inspect.signature(self.model.forward).parameters
        return CausalBatches(pad_token_id=pad_token_id, label_only_logits="logits_to_keep" in parameters)


def longest_row(base: BaseModel, *, max_length: int, virtual_tokens: int) -> int:
    """Return how many tokens a row may have: ``max_length``, or as many as the model has positions for.

    Args:
        base: The base model.
        max_length: What the spec allows.
        virtual_tokens: Positions that the adapter takes.
    """
    positions = getattr(base.model.config, "max_position_embeddings", None)
    return max_length if positions is None else min(max_length, positions - virtual_tokens)


def load_base_model(spec: BaseModelSpec, device: Device) -> BaseModel:
    """Find and load a base model and its tokenizer.

    Raises:
        ModelNotCached: See ``locate``.
        ModelNotFound: See ``locate``.
        ModelDownloadFailed: See ``locate``.
        ModelInvalid: See ``locate``; or transformers cannot load the files.
    """
    files, source = locate(spec)
    local = {
        "pretrained_model_name_or_path": str(files.directory),
        "local_files_only": True,
        "trust_remote_code": False,
    }
    try:
        config = AutoConfig.from_pretrained(**local)
        tokenizer = AutoTokenizer.from_pretrained(**local)
        auto_class = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        model = auto_class.from_pretrained(
            **local,
            config=config,
            use_safetensors=True,
            dtype=torch.bfloat16 if device.bf16 else torch.float32,
        )
    except (ValueError, KeyError, TypeError, AttributeError, OSError, SafetensorError) as error:
        raise ModelInvalid(
            f"transformers cannot load {files.name} from {files.directory}: {error}",
            remedy="Choose a causal or sequence-to-sequence model that needs no code of its own.",
        ) from error
    _require_end_and_padding(tokenizer, files)
    model.requires_grad_(False)
    model.to(device.torch_device)
    model.config.use_cache = False
    logger.info(
        "Base model and tokenizer: %s%s from the %s (%s), %s, %s, %d parameters, %d tokens in the vocabulary.",
        files.name,
        f" at commit {files.commit}" if files.commit else "",
        source,
        files.directory,
        config.model_type,
        "sequence to sequence" if config.is_encoder_decoder else "causal",
        model.num_parameters(),
        len(tokenizer),
    )
    return BaseModel(
        model=model,
        tokenizer=tokenizer,
        files=files,
        source=source,
        is_encoder_decoder=bool(config.is_encoder_decoder),
    )


def _require_end_and_padding(tokenizer: Any, files: ModelFiles) -> None:
    if tokenizer.eos_token_id is None:
        raise ModelInvalid(
            f"the tokenizer of {files.name} has no EOS token, so an answer could not end",
            remedy="Choose a model whose tokenizer has an eos_token.",
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
