"""Where a base model's files are: a directory, the hub cache, or a download into it.

Comes in: the spec's base model. Goes out: its files, whole and sound, or an error that says in our words what is wrong
with them. No torch here: this is also what ``prefetch`` and ``preflight`` run.
"""

from __future__ import annotations

import logging
import shlex
from enum import StrEnum
from pathlib import Path
from typing import Final

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from peft_trainer.errors import ModelDownloadFailed, ModelInvalid, ModelNotCached, ModelNotFound
from peft_trainer.model_files import DOWNLOAD_PATTERNS, ModelFiles, inspect_model
from training_contract.preflight_report import CacheState
from training_contract.run_spec import BaseModelSpec

logger = logging.getLogger(__name__)

PATH_REMEDY: Final = "Check base_model_name_or_path: it is the path as the trainer sees it, on its own machine."
SAFETENSORS_REMEDY: Final = "Choose a model with safetensors weights, or convert this one."


class ModelSource(StrEnum):
    """Where a base model came from."""

    DIRECTORY = "directory"
    CACHE = "cache"
    DOWNLOAD = "download"


def cache_directory_of(spec: BaseModelSpec) -> Path:
    """Return the hub cache that a spec means."""
    return Path(spec.cache_directory or constants.HF_HUB_CACHE).expanduser()


def locate(spec: BaseModelSpec, *, verify_content: bool = False) -> tuple[ModelFiles, ModelSource]:
    """Find the files of a base model, downloading them if that is needed and allowed.

    Args:
        spec: The base model.
        verify_content: Whether cached files are read to the end and compared with their hashes.

    Raises:
        ModelNotCached: It is not wholly in the cache and must not be downloaded.
        ModelNotFound: There is no such directory, model or revision.
        ModelDownloadFailed: Network, hub or access failed.
        ModelInvalid: Its files are damaged or pickles only.
    """
    cache_directory = cache_directory_of(spec)

    def look() -> ModelFiles:
        return inspect_model(
            spec.base_model_name_or_path,
            revision=spec.revision,
            cache_directory=cache_directory,
            verify_content=verify_content,
        )

    files = look()
    source = ModelSource.DIRECTORY if files.is_directory else ModelSource.CACHE
    if not files.is_directory and files.state is not CacheState.COMPLETE and not spec.local_files_only:
        logger.info("%s is not wholly in the cache (%s); downloading it.", files.name, files.problem)
        download(spec, cache_directory, damaged=bool(files.damaged))
        files, source = look(), ModelSource.DOWNLOAD
    _refuse_unusable(spec, files, source)
    return files, source


def download(spec: BaseModelSpec, cache_directory: Path, *, damaged: bool = False) -> None:
    """Bring a base model into the cache: weights, tokenizer and configuration, never pickles, never code.

    Args:
        spec: The base model, by hub id.
        cache_directory: The hub cache.
        damaged: Whether what is there must be fetched again.

    Raises:
        ModelNotFound: There is no such model or revision, or no access to it.
        ModelDownloadFailed: Network or hub failed.
    """
    prefetch = prefetch_command(spec.base_model_name_or_path, spec.revision)
    name = f"{spec.base_model_name_or_path} (revision {spec.revision or 'main'})"
    try:
        snapshot_download(
            spec.base_model_name_or_path,
            revision=spec.revision,
            cache_dir=cache_directory,
            allow_patterns=list(DOWNLOAD_PATTERNS),
            force_download=damaged,
        )
    except GatedRepoError as error:
        raise ModelDownloadFailed(
            f"access to {name} is restricted, and the token of this environment is not on its list",
            remedy="Ask for access on the model's page and give the download a token (HF_TOKEN).",
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        raise ModelNotFound(
            f"there is no model {name} on the hub, or it is private",
            remedy="Check base_model_name_or_path and revision; a private model needs a token (HF_TOKEN).",
        ) from error
    except (HfHubHTTPError, LocalEntryNotFoundError, EntryNotFoundError, ConnectionError) as error:
        raise ModelDownloadFailed(
            f"{name} could not be downloaded: {_first_line(error)}",
            remedy=f"Check network, proxy and hub; then run: {prefetch}",
        ) from error
    except Exception as error:
        # The hub's HTTP library has its own tree of errors, which changed with every major version.
        if not type(error).__module__.startswith(("httpx", "httpcore", "hf_xet", "ssl")):
            raise
        raise ModelDownloadFailed(
            f"{name} could not be downloaded: {_first_line(error)}",
            remedy=f"Check network, proxy and hub; then run: {prefetch}",
        ) from error


def _refuse_unusable(spec: BaseModelSpec, files: ModelFiles, source: ModelSource) -> None:
    if files.state is CacheState.COMPLETE:
        return
    prefetch = prefetch_command(spec.base_model_name_or_path, spec.revision)
    if files.is_directory and files.directory is None:
        raise ModelNotFound(
            f"the base model's directory {files.name} is not there",
            remedy=PATH_REMEDY,
        )
    if files.pickles:
        raise ModelInvalid(
            f"{files.name} has no safetensors weights: {files.problem}; pickles can run code and are refused",
            remedy=SAFETENSORS_REMEDY,
        )
    if files.damaged or files.is_directory:
        raise ModelInvalid(
            f"the files of {files.name} cannot be used: {files.problem}",
            remedy="Copy the directory again." if files.is_directory else f"Fetch it again: {prefetch}",
        )
    if source is ModelSource.DOWNLOAD:
        raise ModelInvalid(
            f"{files.name} is still not whole after it was downloaded: {files.problem}; pickles are never fetched",
            remedy=SAFETENSORS_REMEDY,
        )
    raise ModelNotCached(
        f"{files.name} is not wholly in the cache ({files.problem}) and this run must not download it",
        remedy=f"Fill the cache first: {prefetch}",
    )


def prefetch_command(model: str, revision: str | None) -> str:
    """Return the command that brings a model into the cache, as a person would type it.

    Args:
        model: Its hub id.
        revision: Commit, tag or branch; ``None``: ``main``.
    """
    command = ["peft-retraining", "cache", "prefetch", "--base-model", model]
    return shlex.join([*command, "--revision", revision] if revision else command)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
