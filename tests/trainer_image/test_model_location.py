"""A base model is found, or the reason it is not has a name."""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from peft_trainer import model_location
from peft_trainer.errors import ModelDownloadFailed, ModelInvalid, ModelNotCached, ModelNotFound, TrainerError
from peft_trainer.model_location import ModelSource, locate, prefetch_command
from peft_trainer.prefetch import prefetch, print_prefetched
from training_contract.exit_codes import ExitCode
from training_contract.run_spec import BaseModelSpec

from .hub_cache import COMMIT, HUB_ID, fill_cache

RESPONSE = httpx2.Response(404, request=httpx2.Request("GET", "https://hub.example/someone/tiny"))


def spec_of(cache: Path, *, name: str = HUB_ID, local_files_only: bool = True) -> BaseModelSpec:
    return BaseModelSpec(base_model_name_or_path=name, local_files_only=local_files_only, cache_directory=str(cache))


def prefetched_by(remedy: str) -> tuple[str, str | None]:
    """Model and revision of the command in a remedy, as a shell and the command line of the Airflow side read it."""
    program, *arguments = shlex.split(remedy[remedy.index("peft-retraining") :])
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("command", nargs=2)
    parser.add_argument("--base-model")
    parser.add_argument("--revision")
    given = parser.parse_args(arguments)
    assert (program, given.command) == ("peft-retraining", ["cache", "prefetch"])
    return given.base_model, given.revision


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Any]], None]:
    """Lets a test say what a download does."""

    def answer(download: Callable[..., Any]) -> None:
        monkeypatch.setattr(model_location, "snapshot_download", download)

    return answer


def _never(*_: Any, **__: Any) -> str:
    raise AssertionError("nothing may be downloaded here")


def test_a_directory_is_used_as_it_is(tmp_path: Path, tiny_causal: Path, hub: Any) -> None:
    hub(_never)
    files, source = locate(spec_of(tmp_path, name=str(tiny_causal), local_files_only=False))
    assert (files.directory, source) == (tiny_causal, ModelSource.DIRECTORY)


def test_what_is_in_the_cache_is_not_downloaded(tmp_path: Path, tiny_causal: Path, hub: Any) -> None:
    hub(_never)
    fill_cache(tmp_path, tiny_causal)
    files, source = locate(spec_of(tmp_path, local_files_only=False))
    assert (files.commit, source) == (COMMIT, ModelSource.CACHE)


def test_what_is_missing_is_downloaded_if_that_is_allowed(tmp_path: Path, tiny_causal: Path, hub: Any) -> None:
    asked: dict[str, Any] = {}

    def download(name: str, **settings: Any) -> str:
        asked.update(settings, name=name)
        return str(fill_cache(tmp_path, tiny_causal))

    hub(download)
    files, source = locate(spec_of(tmp_path, local_files_only=False))
    assert (files.commit, source) == (COMMIT, ModelSource.DOWNLOAD)
    assert asked["name"] == HUB_ID
    assert not any(pattern.endswith((".bin", ".pt", ".py")) for pattern in asked["allow_patterns"])


@pytest.mark.parametrize("revision", [None, "v1.1"])
def test_an_empty_cache_is_not_filled_when_the_run_is_offline(tmp_path: Path, hub: Any, revision: str | None) -> None:
    hub(_never)
    with pytest.raises(ModelNotCached, match="must not download") as caught:
        locate(replace(spec_of(tmp_path), revision=revision))
    assert prefetched_by(caught.value.remedy) == (HUB_ID, revision)


@pytest.mark.parametrize("revision", [None, "v1.1", "refs/pr/1"])
@pytest.mark.parametrize("model", [HUB_ID, "/models/it's mine"])
def test_the_command_that_fills_the_cache_names_model_and_revision(model: str, revision: str | None) -> None:
    assert prefetched_by(prefetch_command(model, revision)) == (model, revision)


@pytest.mark.parametrize("revision", [None, "v1.1"])
@pytest.mark.parametrize("refusal", [HfHubHTTPError("500", response=RESPONSE), httpx2.ConnectTimeout("slow")])
def test_after_a_failed_download_the_remedy_fetches_the_same_revision(
    tmp_path: Path, hub: Any, refusal: Exception, revision: str | None
) -> None:
    def download(*_: Any, **__: Any) -> str:
        raise refusal

    hub(download)
    with pytest.raises(ModelDownloadFailed) as caught:
        locate(replace(spec_of(tmp_path, local_files_only=False), revision=revision))
    assert prefetched_by(caught.value.remedy) == (HUB_ID, revision)


def test_a_directory_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="not there"):
        locate(spec_of(tmp_path, name=str(tmp_path / "none")))


def test_a_damaged_directory_is_invalid(tmp_path: Path, tiny_causal: Path) -> None:
    model = Path(shutil.copytree(tiny_causal, tmp_path / "model"))
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ModelInvalid, match=r"model\.safetensors is damaged"):
        locate(spec_of(tmp_path, name=str(model)))


def test_pickles_are_refused(tmp_path: Path, tiny_causal: Path) -> None:
    model = Path(shutil.copytree(tiny_causal, tmp_path / "model"))
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    with pytest.raises(ModelInvalid, match="pickles"):
        locate(spec_of(tmp_path, name=str(model)))


@pytest.mark.parametrize(
    ("refusal", "expected"),
    [
        pytest.param(RepositoryNotFoundError("none", response=RESPONSE), ModelNotFound, id="no-such-model"),
        pytest.param(RevisionNotFoundError("none", response=RESPONSE), ModelNotFound, id="no-such-revision"),
        pytest.param(GatedRepoError("gated", response=RESPONSE), ModelDownloadFailed, id="gated"),
        pytest.param(HfHubHTTPError("500", response=RESPONSE), ModelDownloadFailed, id="hub-down"),
        pytest.param(LocalEntryNotFoundError("offline"), ModelDownloadFailed, id="no-network"),
        pytest.param(httpx2.ConnectTimeout("slow"), ModelDownloadFailed, id="time-out"),
        pytest.param(httpx2.ProxyError("proxy"), ModelDownloadFailed, id="proxy"),
        pytest.param(ConnectionResetError("reset"), ModelDownloadFailed, id="connection-reset"),
    ],
)
def test_a_download_that_fails_says_why(
    tmp_path: Path, hub: Any, refusal: Exception, expected: type[TrainerError]
) -> None:
    def download(*_: Any, **__: Any) -> str:
        raise refusal

    hub(download)
    with pytest.raises(expected) as caught:
        locate(spec_of(tmp_path, local_files_only=False))
    assert type(caught.value) is expected
    assert caught.value.remedy


def test_prefetch_prints_what_is_there_now(
    tmp_path: Path, tiny_causal: Path, hub: Any, capsys: pytest.CaptureFixture[str], in_process: None
) -> None:
    hub(lambda *_, **__: str(fill_cache(tmp_path, tiny_causal)))
    assert print_prefetched(HUB_ID, revision=None, cache_directory=tmp_path) is ExitCode.SUCCESS
    answer = json.loads(capsys.readouterr().out)
    assert (answer["commit"], answer["cache_state"], answer["source"]) == (COMMIT, "complete", "download")


def test_prefetch_only_checks_a_directory(tiny_causal: Path, hub: Any) -> None:
    hub(_never)
    answer = json.loads(prefetch(str(tiny_causal), revision=None, cache_directory=None))
    assert (answer["path"], answer["cache_state"]) == (str(tiny_causal), "complete")


def test_prefetch_ends_with_the_code_of_the_cause(
    tmp_path: Path, hub: Any, capsys: pytest.CaptureFixture[str], in_process: None
) -> None:
    def download(*_: Any, **__: Any) -> str:
        raise RepositoryNotFoundError("none", response=RESPONSE)

    hub(download)
    assert print_prefetched(HUB_ID, revision=None, cache_directory=tmp_path) is ExitCode.MODEL_NOT_FOUND
    assert "What to do:" in capsys.readouterr().err
