from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import pytest

from peft_retraining.errors import InfrastructureError, PlatformError, UserError
from peft_retraining.publishing.adapter_store import AdapterStore
from tests.plugins.publishing.trained_adapters import night, train_adapter


@pytest.fixture
def versions(store: AdapterStore, tmp_path: Path) -> dict[int, str]:
    """Versions by the day of November on which their window ends, published out of order."""
    published = {}
    for day in (7, 9, 8):
        published[day] = train_adapter(tmp_path / f"attempt-{day}", night(day)).publish_to(store).version
    return published


def rewrite_manifest(store: AdapterStore, version: str, **changes: object) -> None:
    path = store.versions_directory / version / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def version_names(store: AdapterStore) -> list[str]:
    return [manifest.version for manifest in store.versions()]


@pytest.mark.parametrize("exists", [True, False], ids=["empty directory", "no directory"])
def test_a_store_without_adapters_has_nothing(tmp_path: Path, exists: bool) -> None:
    if exists:
        (tmp_path / "adapters").mkdir()
    store = AdapterStore(tmp_path / "adapters", "assistant")

    assert store.latest() is None
    assert store.versions() == []


def test_versions_come_newest_window_first(store: AdapterStore, versions: dict[int, str]) -> None:
    assert version_names(store) == [versions[9], versions[8], versions[7]]


def test_versions_of_one_window_come_last_published_first(store: AdapterStore, tmp_path: Path) -> None:
    names = [
        train_adapter(tmp_path / str(hour), night(9), weights=bytes([hour]))
        .publish_to(store, now=lambda hour=hour: night(9, hour))  # type: ignore[misc]
        .version
        for hour in (5, 3, 4)
    ]

    assert version_names(store) == [names[0], names[2], names[1]]


def test_latest_is_the_version_that_readers_get(store: AdapterStore, versions: dict[int, str]) -> None:
    latest = store.latest()

    assert latest is not None
    assert latest.version == versions[9]


def test_what_is_not_a_complete_version_is_ignored(store: AdapterStore, versions: dict[int, str]) -> None:
    root = store.versions_directory
    (root / versions[7] / "manifest.json").unlink()
    (root / versions[8] / "manifest.json").write_text('{"contract_version": "1.0"')
    (root / ".tmp-20261120T020000Z-00000000-7-ab").mkdir()
    (root / "20261121T020000Z-00000000").mkdir()
    (root / "20261122T020000Z-00000000").write_text("a file")
    shutil.copytree(root / versions[9], root / "20261123T020000Z-00000000")
    shutil.copytree(root / versions[9], root / "backup")

    assert version_names(store) == [versions[9]]


@pytest.mark.parametrize(
    "changes",
    [{"window_ends_at": "yesterday"}, {"window_ends_at": "2026-11-09T02:00:00"}, {"adapter_name": "other"}],
    ids=["no time", "no offset", "another adapter"],
)
def test_a_manifest_that_cannot_be_placed_is_ignored_and_not_verified(
    store: AdapterStore, versions: dict[int, str], changes: dict[str, str]
) -> None:
    rewrite_manifest(store, versions[9], **changes)

    assert version_names(store) == [versions[8], versions[7]]
    assert store.latest() is None
    with pytest.raises(PlatformError) as caught:
        store.verify(versions[9])
    assert caught.value.failure_code == "published_adapter_damaged"


def test_a_newer_manifest_with_more_fields_is_read(store: AdapterStore, versions: dict[int, str]) -> None:
    rewrite_manifest(store, versions[9], contract_version="1.7", promoted_by="somebody")

    assert store.verify(versions[9]).version == versions[9]


def test_what_another_release_published_is_not_taken_for_missing(
    store: AdapterStore, versions: dict[int, str], tmp_path: Path
) -> None:
    rewrite_manifest(store, versions[9], contract_version="2.0")

    for read in (store.versions, store.latest, lambda: store.verify(versions[9])):
        with pytest.raises(PlatformError) as caught:
            read()
        assert caught.value.failure_code == "published_by_another_release"
    with pytest.raises(PlatformError):
        train_adapter(tmp_path / "older", night(3)).publish_to(store)
    assert store.alias.readlink().name == versions[9]


def test_storage_that_fails_is_not_taken_for_an_empty_store(
    store: AdapterStore, versions: dict[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    unreadable = store.versions_directory / versions[9] / "manifest.json"
    open_path = Path.open

    def stale(path: Path, *arguments: object, **options: object) -> object:
        if path == unreadable:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))
        return open_path(path, *arguments, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", stale)

    for read in (store.versions, store.latest, lambda: store.verify(versions[9])):
        with pytest.raises(InfrastructureError, match=str(unreadable)) as caught:
            read()
        assert caught.value.failure_code == "adapter_storage_failed"


def test_a_whole_version_verifies(store: AdapterStore, versions: dict[int, str]) -> None:
    assert store.verify(versions[8]).window_ends_at == "2026-11-08T02:00:00+00:00"


def test_verifying_tells_every_damaged_file(store: AdapterStore, versions: dict[int, str]) -> None:
    (store.versions_directory / versions[8] / "adapter_model.safetensors").write_bytes(b"")
    (store.versions_directory / versions[8] / "adapter_config.json").unlink()

    with pytest.raises(PlatformError, match=r"adapter_config\.json is missing.*adapter_model\.safetensors") as caught:
        store.verify(versions[8])

    assert caught.value.failure_code == "published_adapter_damaged"


@pytest.mark.parametrize("version", ["20261231T020000Z-00000000", "../versions", "", "latest", "a\x00b"])
def test_a_version_that_is_not_there_is_the_users_mistake(
    store: AdapterStore, versions: dict[int, str], version: str
) -> None:
    assert versions
    with pytest.raises(UserError) as caught:
        store.verify(version)

    assert caught.value.failure_code == "adapter_version_unknown"
