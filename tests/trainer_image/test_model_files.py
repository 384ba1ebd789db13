"""What of a base model is there, whole, sound and safe is told from its files alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from peft_trainer.model_files import ModelFiles, count_parameters, inspect_model
from training_contract.preflight_report import CacheState

from .hub_cache import COMMIT, HUB_ID, fill_cache


@pytest.fixture
def model(tmp_path: Path, tiny_causal: Path) -> Path:
    """A directory of our own to damage."""
    return Path(shutil.copytree(tiny_causal, tmp_path / "model"))


@pytest.fixture
def cache(tmp_path: Path, tiny_causal: Path) -> Path:
    """A hub cache with the model in it."""
    fill_cache(tmp_path / "cache", tiny_causal)
    return tmp_path / "cache"


def snapshot_of(cache: Path) -> Path:
    return cache / "models--someone--tiny" / "snapshots" / COMMIT


def in_directory(directory: Path) -> ModelFiles:
    return inspect_model(str(directory), revision=None, cache_directory=Path("/nowhere"), verify_content=True)


def in_cache(cache: Path, revision: str | None = None) -> ModelFiles:
    return inspect_model(HUB_ID, revision=revision, cache_directory=cache, verify_content=True)


def shard(model: Path) -> None:
    """Split the weights in two, with an index."""
    weights = load_file(model / "model.safetensors")
    names = sorted(weights)
    shards = {"model-00001-of-00002.safetensors": names[:5], "model-00002-of-00002.safetensors": names[5:]}
    for file, members in shards.items():
        save_file({name: weights[name] for name in members}, model / file)
    index = {"weight_map": {name: file for file, members in shards.items() for name in members}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    (model / "model.safetensors").unlink()


def test_a_whole_directory_is_complete(model: Path) -> None:
    files = in_directory(model)
    assert (files.state, files.directory, files.commit, files.problem) == (CacheState.COMPLETE, model, None, "")
    assert files.parameter_count == sum(tensor.numel() for tensor in load_file(model / "model.safetensors").values())


def test_a_missing_directory_is_absent(tmp_path: Path) -> None:
    files = in_directory(tmp_path / "none")
    assert (files.state, files.is_directory) == (CacheState.ABSENT, True)


def test_shards_count_together(model: Path) -> None:
    whole = in_directory(model).parameter_count
    shard(model)
    assert in_directory(model).parameter_count == whole


def test_a_missing_shard_is_named(model: Path) -> None:
    shard(model)
    (model / "model-00002-of-00002.safetensors").unlink()
    files = in_directory(model)
    assert files.state is CacheState.PARTIAL
    assert "model-00002-of-00002.safetensors" in files.problem


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_file_makes_it_partial(model: Path, name: str) -> None:
    (model / name).unlink()
    files = in_directory(model)
    assert files.state is CacheState.PARTIAL
    assert "missing" in files.problem


def _cut(content: bytes) -> bytes:
    return content[:-7]


def _lengthen(content: bytes) -> bytes:
    return content + b"\0"


def _spoil_header_length(content: bytes) -> bytes:
    return b"\xff" * 8 + content[8:]


def _spoil_header(content: bytes) -> bytes:
    return content[:8] + b"?" * 20 + content[28:]


def _nearly_empty(content: bytes) -> bytes:
    return content[:5]


@pytest.mark.parametrize("spoil", [_cut, _lengthen, _spoil_header_length, _spoil_header, _nearly_empty])
def test_damaged_weights_are_told_by_their_header_and_size(model: Path, spoil: Callable[[bytes], bytes]) -> None:
    weights = model / "model.safetensors"
    weights.write_bytes(spoil(weights.read_bytes()))
    files = in_directory(model)
    assert files.state is CacheState.PARTIAL
    assert "model.safetensors is damaged" in files.problem


def test_any_prefix_of_a_weights_file_is_refused(model: Path) -> None:
    weights = model / "model.safetensors"
    content = weights.read_bytes()
    for length in (0, 1, 8, 9, 100, len(content) // 2, len(content) - 1):
        weights.write_bytes(content[:length])
        with pytest.raises(ValueError, match="bytes"):
            count_parameters(weights)


def test_pickled_weights_alone_are_unsafe(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    files = in_directory(model)
    assert files.pickles == ("pytorch_model.bin",)
    assert files.state is CacheState.PARTIAL


def test_a_whole_cache_is_complete_and_names_its_commit(cache: Path) -> None:
    files = in_cache(cache)
    assert (files.state, files.commit, files.directory) == (CacheState.COMPLETE, COMMIT, snapshot_of(cache))
    assert in_cache(cache, COMMIT).state is CacheState.COMPLETE


def test_another_revision_is_absent(cache: Path) -> None:
    assert in_cache(cache, "v2").directory is not None  # something of the model is there ...
    assert in_cache(cache, "v2").state is CacheState.PARTIAL  # ... but not this


def test_an_empty_cache_is_absent(tmp_path: Path) -> None:
    assert in_cache(tmp_path).state is CacheState.ABSENT


def test_an_interrupted_download_is_partial(tmp_path: Path) -> None:
    blobs = tmp_path / "models--someone--tiny" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / ("a" * 64 + ".incomplete")).write_bytes(b"half")
    assert in_cache(tmp_path).state is CacheState.PARTIAL


def test_a_link_to_a_blob_that_is_gone_is_missing(cache: Path) -> None:
    (snapshot_of(cache) / "model.safetensors").resolve().unlink()
    assert in_cache(cache).missing == ("model.safetensors is missing",)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_blob_whose_content_is_not_what_its_name_says_is_damaged(cache: Path, name: str) -> None:
    blob = (snapshot_of(cache) / name).resolve()
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)
    assert any(name in problem for problem in in_cache(cache).damaged)
