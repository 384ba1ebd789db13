"""The adapter, on the disk: whole, checked and durable, or not there.

Comes in: the trained model. Goes out: ``adapter/`` with the adapter, its tokenizer, and the hash of each file. It is
written under a temporary name, read back, checked, flushed, and renamed.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors import SafetensorError
from safetensors.torch import load_file

from peft_trainer.adapter import adapter_state
from peft_trainer.errors import AdapterUnusable
from peft_trainer.sharing import share_with_group
from training_contract.durable_files import file_sha256, flush_directory, flush_tree, temporary_name
from training_contract.locations import AttemptDirectory
from training_contract.result import FileEntry
from training_contract.run_spec import BaseModelSpec

logger = logging.getLogger(__name__)

_CHECKED_AS: Final = "saved"


def save_adapter(
    model: Any,
    tokenizer: Any,
    attempt: AttemptDirectory,
    *,
    base_model: BaseModelSpec,
    base_model_revision: str | None,
    initial_state: Mapping[str, torch.Tensor],
) -> dict[str, FileEntry]:
    """Save the adapter as ``adapter/`` of the attempt.

    Args:
        model: The trained PEFT model.
        tokenizer: Saved beside the adapter, so that serving needs nothing else but the base model.
        attempt: Where it goes.
        base_model: What the saved adapter says it is for.
        base_model_revision: The commit of it; ``None`` for a directory.
        initial_state: The adapter's tensors before training.

    Returns:
        Hash and size by path inside ``adapter/``.

    Raises:
        AdapterUnusable: It is unchanged, not finite, or not what is read back.
        OSError: The file system refuses.
    """
    config = model.active_peft_config
    config.base_model_name_or_path = base_model.base_model_name_or_path
    config.revision = base_model_revision
    if getattr(config, "tokenizer_name_or_path", None):
        config.tokenizer_name_or_path = base_model.base_model_name_or_path
    temporary = temporary_name(attempt.adapter_directory)
    try:
        model.save_pretrained(temporary, save_embedding_layers=False)
        tokenizer.save_pretrained(temporary)
        check_adapter(temporary, model, initial_state)
        share_with_group(temporary)
        temporary.chmod(0o770)
        flush_tree(temporary)
        files = {
            str(file.relative_to(temporary)): FileEntry(sha256=file_sha256(file), size_bytes=file.stat().st_size)
            for file in sorted(temporary.rglob("*"))
            if file.is_file()
        }
        temporary.rename(attempt.adapter_directory)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    flush_directory(attempt.root)
    logger.info(
        "Saved the adapter: %s, %d files, %d bytes.",
        attempt.adapter_directory,
        len(files),
        sum(entry.size_bytes for entry in files.values()),
    )
    return files


def check_adapter(directory: Path, model: Any, initial_state: Mapping[str, torch.Tensor]) -> None:
    """Check that a saved adapter is one: finite, trained, what the model has, and loadable by PEFT.

    Args:
        directory: Where it was saved.
        model: The PEFT model that it was saved from; the saved one is loaded beside it and removed again.
        initial_state: The adapter's tensors before training.

    Raises:
        AdapterUnusable: It did not pass.
    """
    try:
        saved = load_file(directory / SAFETENSORS_WEIGHTS_NAME)
    except (SafetensorError, OSError, ValueError) as error:
        raise _unusable(f"cannot be read back: {error}") from error
    wild = sorted(name for name, tensor in saved.items() if not bool(torch.isfinite(tensor).all()))
    if wild:
        raise _unusable(f"has {len(wild)} tensors that are not finite, the first is {wild[0]}")
    if not _same(saved, adapter_state(model)):
        raise _unusable("is not what the model has in memory")
    if _same(saved, initial_state):
        raise _unusable("is unchanged: the training had no effect on it")
    try:
        model.load_adapter(directory, _CHECKED_AS)
        loaded = adapter_state(model, _CHECKED_AS)
        model.delete_adapter(_CHECKED_AS)
    except (ValueError, RuntimeError, KeyError, TypeError) as error:
        raise _unusable(f"cannot be loaded by PEFT: {error}") from error
    if not _same(saved, loaded):
        raise _unusable("is not what PEFT loads from it")


def _same(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def _unusable(problem: str) -> AdapterUnusable:
    return AdapterUnusable(
        f"the saved adapter {problem}",
        remedy="Check learning_rate, the labels of the rows, and the disk; then train again.",
    )
