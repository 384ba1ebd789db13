from __future__ import annotations

import os
from pathlib import Path

import pytest

from peft_retraining.errors import PlatformError
from peft_retraining.publishing.staging import check_file_names, copy_verified
from tests.plugins.publishing.trained_adapters import file_entries
from training_contract.result import FileEntry

FILES = {"adapter_config.json": b"{}", "tokenizer/vocab/tokens.txt": b"a b c", "adapter_model.safetensors": b"w" * 100}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        path = tmp_path / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "source"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "target").mkdir()
    return tmp_path / "target"


def assert_refused(source: Path, target: Path, problem: str, files: dict[str, FileEntry] | None = None) -> None:
    with pytest.raises(PlatformError) as caught:
        copy_verified(source, target, files or file_entries(FILES))
    assert caught.value.failure_code == "adapter_files_mismatch"
    assert problem in str(caught.value)


def test_files_are_copied_with_their_directories(source: Path, target: Path) -> None:
    copy_verified(source, target, file_entries(FILES))

    copied = {path.relative_to(target).as_posix(): path.read_bytes() for path in target.rglob("*") if path.is_file()}
    assert copied == FILES


def test_a_file_of_several_chunks_is_copied_whole(tmp_path: Path, target: Path) -> None:
    content = os.urandom(3 * 1024 * 1024 + 17)
    (tmp_path / "large").mkdir()
    (tmp_path / "large" / "adapter_model.safetensors").write_bytes(content)

    copy_verified(tmp_path / "large", target, file_entries({"adapter_model.safetensors": content}))

    assert (target / "adapter_model.safetensors").read_bytes() == content


def test_another_content_of_the_same_size_is_refused(source: Path, target: Path) -> None:
    (source / "adapter_model.safetensors").write_bytes(b"v" * 100)

    assert_refused(source, target, "adapter_model.safetensors has SHA-256")


def test_a_truncated_file_is_refused_before_anything_is_copied(source: Path, target: Path) -> None:
    (source / "adapter_model.safetensors").write_bytes(b"w" * 99)

    assert_refused(source, target, "has 99 bytes, expected 100")
    assert list(target.iterdir()) == []


def test_all_problems_are_told_at_once(source: Path, target: Path) -> None:
    (source / "adapter_config.json").unlink()
    (source / "stray.bin").write_bytes(b"")

    assert_refused(source, target, "adapter_config.json is missing; stray.bin is not in the result")


def test_a_long_list_of_problems_is_shortened_and_counted(source: Path, target: Path) -> None:
    for number in range(30):
        (source / f"stray-{number:02}").write_bytes(b"")

    assert_refused(source, target, "; and 20 more")


def test_a_missing_directory_is_refused(tmp_path: Path, target: Path) -> None:
    assert_refused(tmp_path / "nowhere", target, "it is not a directory")


def test_a_linked_source_is_refused(source: Path, tmp_path: Path, target: Path) -> None:
    (tmp_path / "linked").symlink_to(source)

    assert_refused(tmp_path / "linked", target, "it is not a directory")


@pytest.mark.parametrize("linked", ["adapter_model.safetensors", "tokenizer", "extra"])
def test_a_link_is_not_followed(source: Path, tmp_path: Path, target: Path, linked: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    if (source / linked).exists():
        (source / linked).rename(elsewhere)
    (source / linked).symlink_to(elsewhere)

    assert_refused(source, target, f"{linked} is neither a file nor a directory")


def test_a_pipe_is_refused_and_not_waited_for(source: Path, target: Path) -> None:
    os.mkfifo(source / "pipe")

    assert_refused(source, target, "pipe is neither a file nor a directory")


@pytest.mark.parametrize(
    "name", ["../outside", "/etc/passwd", "a/../../b", "a/..", ".", "", "./a", "a//b", "a/", "a\x00b", "manifest.json"]
)
def test_a_name_outside_the_adapter_is_refused(name: str) -> None:
    with pytest.raises(PlatformError) as caught:
        check_file_names({**file_entries(FILES), name: FileEntry(sha256="0" * 64, size_bytes=0)}, adapter="it")

    assert caught.value.failure_code == "adapter_files_mismatch"


def test_a_result_without_files_is_refused() -> None:
    with pytest.raises(PlatformError, match="names no file"):
        check_file_names({}, adapter="it")


def test_names_inside_the_adapter_pass() -> None:
    check_file_names(file_entries({**FILES, "..hidden": b"", "vocab/manifest.json": b""}), adapter="it")
