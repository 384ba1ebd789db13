"""What of a base model lies on the disk: judged by its files, without loading it and without a network.

Comes in: a hub id with a revision, or a directory. Goes out: ``ModelFiles``, with everything that is missing, damaged
or unsafe. A file counts as damaged when its safetensors header does not fit its size, or when its content is not what
the hub cache's blob name (a hash of the content) says.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from training_contract.durable_files import file_sha256
from training_contract.preflight_report import CacheState

DEFAULT_REVISION: Final = "main"
CONFIG_FILE: Final = "config.json"
WEIGHTS_FILE: Final = "model.safetensors"
WEIGHTS_INDEX_FILE: Final = "model.safetensors.index.json"
TOKENIZER_FILES: Final = (
    "tokenizer.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "vocab.json",
    "vocab.txt",
)
"""A tokenizer needs one of these."""
DOWNLOAD_PATTERNS: Final = (
    "*.safetensors",
    "*.safetensors.index.json",
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*",
    "merges.txt",
    "*.model",
    "chat_template*",
)
"""What a base model needs from a hub: never pickles, never code."""

_PICKLES: Final = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_MAX_HEADER_BYTES: Final = 100 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFiles:
    """The files of a base model, as they are.

    Attributes:
        name: The hub id or directory that was asked for.
        is_directory: Whether it is a directory of ours rather than a hub id.
        directory: Where the files are; ``None``: nowhere.
        commit: The commit that they are of; ``None``: unknown, or a directory.
        missing: What is missing, in words.
        damaged: What is damaged, in words.
        pickles: Weights that only a pickle reader could load, when there are no others.
        parameter_count: Numbers in the weights.
    """

    name: str
    is_directory: bool
    directory: Path | None = None
    commit: str | None = None
    missing: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()
    pickles: tuple[str, ...] = ()
    parameter_count: int = 0

    @property
    def state(self) -> CacheState:
        """How much of the model is there and sound."""
        if self.directory is None:
            return CacheState.ABSENT
        return CacheState.PARTIAL if self.missing or self.damaged or self.pickles else CacheState.COMPLETE

    @property
    def problem(self) -> str:
        """Everything that is wrong with the files, on one line."""
        if self.directory is None:
            return "nothing of it is there"
        parts = [*self.missing, *self.damaged]
        if self.pickles:
            parts.append(f"its weights are pickles only ({', '.join(self.pickles)})")
        return "; ".join(parts)


def is_directory_name(name_or_path: str) -> bool:
    """Return whether a base model's name means a directory rather than a hub id."""
    return name_or_path.startswith(("/", "./", "../", "~")) or Path(name_or_path).is_dir()


def inspect_model(
    name_or_path: str, *, revision: str | None, cache_directory: Path, verify_content: bool
) -> ModelFiles:
    """Look at the files of a base model.

    Args:
        name_or_path: A hub id or a directory.
        revision: Commit, tag or branch on the hub; ``None``: ``main``, or a directory.
        cache_directory: The hub cache.
        verify_content: Whether blobs are read to the end and compared with their hashes: about 1 s a GB.
    """
    if is_directory_name(name_or_path):
        directory = Path(name_or_path).expanduser()
        if not directory.is_dir():
            return ModelFiles(name=name_or_path, is_directory=True)
        return _inspect_directory(directory, name=name_or_path, is_directory=True)
    repository = cache_directory / f"models--{name_or_path.replace('/', '--')}"
    commit = _commit_of(repository, revision or DEFAULT_REVISION)
    snapshot = repository / "snapshots" / commit if commit else None
    if snapshot is None or not snapshot.is_dir():
        started = any((repository / "blobs").glob("*"))
        missing = ("a download was begun and never finished",) if started else ()
        directory_or_none = repository if started else None
        return ModelFiles(
            name=name_or_path, is_directory=False, directory=directory_or_none, commit=commit, missing=missing
        )
    return _inspect_directory(
        snapshot, name=name_or_path, is_directory=False, commit=commit, verify_content=verify_content
    )


def _commit_of(repository: Path, revision: str) -> str | None:
    if _COMMIT.fullmatch(revision):
        return revision
    try:
        commit = (repository / "refs" / revision).read_text("ascii").strip()
    except (OSError, ValueError):
        return None
    return commit if _COMMIT.fullmatch(commit) else None


def _inspect_directory(
    directory: Path, *, name: str, is_directory: bool, commit: str | None = None, verify_content: bool = False
) -> ModelFiles:
    missing: list[str] = []
    damaged: list[str] = []
    config = directory / CONFIG_FILE
    if not config.is_file():
        missing.append(f"{CONFIG_FILE} is missing")
    elif _json_object(config) is None:
        damaged.append(f"{CONFIG_FILE} is not a JSON object")
    if not any((directory / file).is_file() for file in TOKENIZER_FILES):
        missing.append("the tokenizer is missing")
    weights, pickles = _weight_files(directory, missing, damaged)
    parameter_count = 0
    for file in weights:
        try:
            parameter_count += count_parameters(file)
        except (OSError, ValueError) as error:
            damaged.append(f"{file.name} is damaged: {error}")
    if verify_content:
        damaged.extend(
            f"{file.name} does not have the content that its hash promises" for file in _falsified(directory)
        )
    return ModelFiles(
        name=name,
        is_directory=is_directory,
        directory=directory,
        commit=commit,
        missing=tuple(missing),
        damaged=tuple(damaged),
        pickles=pickles,
        parameter_count=parameter_count,
    )


def _weight_files(directory: Path, missing: list[str], damaged: list[str]) -> tuple[list[Path], tuple[str, ...]]:
    if (directory / WEIGHTS_FILE).is_file():
        return [directory / WEIGHTS_FILE], ()
    if (directory / WEIGHTS_INDEX_FILE).is_file():
        index = _json_object(directory / WEIGHTS_INDEX_FILE)
        shard_of = None if index is None else index.get("weight_map")
        if not isinstance(shard_of, dict) or not all(_is_plain_name(shard) for shard in shard_of.values()):
            damaged.append(f"{WEIGHTS_INDEX_FILE} has no weight_map")
            return [], ()
        shards = sorted(set(shard_of.values()))
        absent = [shard for shard in shards if not (directory / shard).is_file()]
        if absent:
            missing.append(f"{len(absent)} of {len(shards)} shards are missing ({', '.join(absent[:3])})")
        return [directory / shard for shard in shards if shard not in absent], ()
    pickles = tuple(sorted(file.name for pattern in _PICKLES for file in directory.glob(pattern)))
    if not pickles:
        missing.append(f"{WEIGHTS_FILE} is missing")
    return [], pickles


def count_parameters(file: Path) -> int:
    """Return how many numbers a safetensors file holds, after checking that the file is as long as its header says.

    Raises:
        ValueError: The file is not safetensors, or is cut off.
        OSError: It cannot be read.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        prefix = stream.read(8)
        if len(prefix) < 8:  # noqa: PLR2004  # the header's length is 8 bytes
            raise ValueError(f"it has {size} bytes, too few for a header")
        (header_bytes,) = struct.unpack("<Q", prefix)
        if header_bytes > min(_MAX_HEADER_BYTES, size - 8):
            raise ValueError(f"its header claims {header_bytes} bytes and the file has {size}")
        try:
            header = json.loads(stream.read(header_bytes))
            tensors = [entry for name, entry in header.items() if name != "__metadata__"]
            ends_at = 8 + header_bytes + max((entry["data_offsets"][1] for entry in tensors), default=0)
            count = sum(math.prod(entry["shape"]) for entry in tensors)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise ValueError("its header is not one of safetensors") from error
    if ends_at != size:
        raise ValueError(f"it should have {ends_at} bytes and has {size}")
    return int(count)


def _falsified(snapshot: Path) -> Iterator[Path]:
    """Yield the files of a hub cache's snapshot whose content is not what their blob's name promises."""
    for link in sorted(snapshot.rglob("*")):
        if not link.is_symlink() or not link.is_file():
            continue
        blob = link.resolve()
        if _SHA256.fullmatch(blob.name):
            sound = file_sha256(blob) == blob.name
        elif _COMMIT.fullmatch(blob.name):
            content = blob.read_bytes()
            # The name of a small file's blob is git's own hash of it.
            sound = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() == blob.name  # noqa: S324
        else:
            continue
        if not sound:
            yield link


def _json_object(file: Path) -> Mapping[str, Any] | None:
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _is_plain_name(name: object) -> bool:
    return isinstance(name, str) and Path(name).name == name
