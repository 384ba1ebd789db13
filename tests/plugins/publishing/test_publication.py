from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peft_retraining.errors import InfrastructureError, PlatformError, RetrainingError
from peft_retraining.publishing.adapter_store import AdapterStore
from tests.plugins.publishing.trained_adapters import (
    DAG_ID,
    TrainedAdapter,
    night,
    temporary_paths,
    train_adapter,
)
from training_contract.adapter_manifest import read_verified_manifest, resolve_latest
from training_contract.documents import write_document

NOBODY = 65534


@pytest.fixture
def trained(tmp_path: Path) -> TrainedAdapter:
    return train_adapter(tmp_path / "attempt-1", night(10))


def readers_get(store: AdapterStore) -> str:
    """The version that somebody who serves the adapter gets, every file checked."""
    return read_verified_manifest(resolve_latest(store.adapters_directory, store.adapter_name)).version


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_the_first_adapter_becomes_latest(store: AdapterStore, trained: TrainedAdapter) -> None:
    published = trained.publish_to(store, now=lambda: datetime(2026, 11, 10, 2, 30, tzinfo=UTC))

    assert published.moved_latest
    assert published.is_latest
    assert readers_get(store) == published.version
    assert published.path == store.versions_directory / published.version
    assert store.alias.readlink() == Path("versions") / published.version
    assert published.version.startswith("20261110T020000Z-")


def test_the_manifest_says_where_the_adapter_comes_from(store: AdapterStore, trained: TrainedAdapter) -> None:
    manifest = trained.publish_to(store, now=lambda: datetime(2026, 11, 10, 2, 30, tzinfo=UTC)).manifest

    assert manifest == store.verify(manifest.version)
    assert (manifest.adapter_name, manifest.dag_id, manifest.run_id) == ("assistant", DAG_ID, trained.run_id)
    assert manifest.training_run_id == trained.result.training_run_id
    assert manifest.window_ends_at == "2026-11-10T02:00:00+00:00"
    assert manifest.published_at == "2026-11-10T02:30:00+00:00"
    assert manifest.data_digest == trained.result.data_digest
    assert manifest.base_model_revision == trained.result.base_model_revision
    assert (manifest.base_heldout_loss, manifest.adapter_heldout_loss) == (2.5, 1.25)
    assert manifest.files == trained.result.adapter_files


def test_a_version_holds_the_files_and_the_manifest_and_nothing_else(
    store: AdapterStore, trained: TrainedAdapter
) -> None:
    path = trained.publish_to(store).path

    files = {file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()}
    assert files == {*trained.result.adapter_files, "manifest.json"}


def test_publishing_twice_gives_one_version(store: AdapterStore, trained: TrainedAdapter) -> None:
    first = trained.publish_to(store)

    second = trained.publish_to(store)

    assert second.version == first.version
    assert second.manifest == first.manifest
    assert (second.moved_latest, second.is_latest) == (False, True)
    assert names_in(store.versions_directory) == [first.version]


def test_publishing_again_needs_no_source(store: AdapterStore, trained: TrainedAdapter) -> None:
    first = trained.publish_to(store)
    shutil.rmtree(trained.source)

    assert trained.publish_to(store).version == first.version


def test_a_retrained_interval_gets_a_version_of_its_own_and_becomes_latest(
    store: AdapterStore, trained: TrainedAdapter, tmp_path: Path
) -> None:
    first = trained.publish_to(store)

    second = train_adapter(tmp_path / "attempt-2", night(10), weights=b"other").publish_to(store)

    assert second.version != first.version
    assert second.moved_latest
    assert readers_get(store) == second.version
    assert len(store.versions()) == 2


def test_the_same_bytes_of_another_run_are_another_version(
    store: AdapterStore, trained: TrainedAdapter, tmp_path: Path
) -> None:
    first = trained.publish_to(store)

    second = train_adapter(tmp_path / "other", night(10), run_id="manual__1").publish_to(store)

    assert second.version != first.version


def test_an_older_interval_is_published_and_does_not_become_latest(
    store: AdapterStore, trained: TrainedAdapter, tmp_path: Path
) -> None:
    newest = trained.publish_to(store)

    backfilled = train_adapter(tmp_path / "backfill", night(3)).publish_to(store)

    assert (backfilled.moved_latest, backfilled.is_latest) == (False, False)
    assert newest.version in backfilled.alias_reason
    assert readers_get(store) == newest.version
    assert store.verify(backfilled.version) == backfilled.manifest


def test_intervals_are_compared_as_instants_not_as_texts(store: AdapterStore, tmp_path: Path) -> None:
    plus_ten = timezone(timedelta(hours=10))
    newer = train_adapter(tmp_path / "newer", night(10, hour=2)).publish_to(store)

    older = train_adapter(tmp_path / "older", datetime(2026, 11, 10, 9, tzinfo=plus_ten)).publish_to(store)

    assert not older.moved_latest
    assert readers_get(store) == newer.version


def test_a_version_whose_publisher_died_before_the_alias_becomes_latest_when_published_again(
    store: AdapterStore, trained: TrainedAdapter
) -> None:
    first = trained.publish_to(store)
    store.alias.unlink()

    second = trained.publish_to(store)

    assert second.version == first.version
    assert second.moved_latest


@pytest.mark.parametrize("target", ["versions/20261112T020000Z-00000000", "elsewhere", "latest", "/nowhere/x"])
def test_a_broken_alias_is_repaired_by_the_next_publish(
    store: AdapterStore, trained: TrainedAdapter, target: str
) -> None:
    store.directory.mkdir()
    store.alias.symlink_to(target)

    published = trained.publish_to(store)

    assert published.moved_latest
    assert readers_get(store) == published.version


def test_an_alias_set_by_hand_with_an_absolute_path_still_fences(
    store: AdapterStore, trained: TrainedAdapter, tmp_path: Path
) -> None:
    newest = trained.publish_to(store)
    store.alias.unlink()
    store.alias.symlink_to(newest.path.absolute())

    assert not train_adapter(tmp_path / "older", night(3)).publish_to(store).moved_latest


def test_a_directory_in_the_place_of_latest_is_refused_before_anything_is_copied(
    store: AdapterStore, trained: TrainedAdapter
) -> None:
    store.directory.mkdir()
    store.alias.mkdir()

    with pytest.raises(PlatformError) as caught:
        trained.publish_to(store)

    assert caught.value.failure_code == "latest_is_not_a_link"
    assert store.versions() == []


@settings(max_examples=15, deadline=None)
@given(days=st.lists(st.integers(1, 28), min_size=1, max_size=5))
def test_in_whatever_order_adapters_are_published_latest_ends_on_the_newest_interval(days: list[int]) -> None:
    with tempfile.TemporaryDirectory() as root:
        store = AdapterStore(Path(root), "assistant")
        for number, day in enumerate(days):
            weights = str(number).encode("ascii")
            train_adapter(Path(root) / f"attempt-{number}", night(day), weights=weights).publish_to(store)

        latest = store.latest()
        assert latest is not None
        assert latest.window_ends_at == night(max(days)).isoformat()
        assert readers_get(store) == latest.version
        assert len(store.versions()) == len(days)


def test_what_dead_publishers_left_is_swept(store: AdapterStore, trained: TrainedAdapter) -> None:
    stage = store.versions_directory / ".tmp-20261109T020000Z-00000000-77-abcd"
    (stage / "tokenizer").mkdir(parents=True)
    (stage / "tokenizer" / "half").write_bytes(b"ha")
    (store.directory / ".tmp-latest-77-abcd").symlink_to("versions/nothing")

    trained.publish_to(store)

    assert temporary_paths(store) == []


def test_what_cannot_be_swept_does_not_stop_publishing(
    store: AdapterStore, trained: TrainedAdapter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stage = store.versions_directory / ".tmp-stage"
    stage.mkdir(parents=True)

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(shutil, "rmtree", refuse)

    assert trained.publish_to(store).is_latest
    assert str(stage) in caplog.text


def test_nothing_of_an_adapter_is_open_to_the_world(store: AdapterStore, trained: TrainedAdapter) -> None:
    before = os.umask(0)
    try:
        trained.publish_to(store)
    finally:
        os.umask(before)

    modes = {path: path.stat().st_mode & 0o7777 for path in (store.directory, *store.directory.rglob("*"))}
    assert set(modes.values()) == {0o2770, 0o660}
    assert all((mode == 0o2770) == path.is_dir() for path, mode in modes.items())


def test_a_result_of_another_run_is_not_published(store: AdapterStore, trained: TrainedAdapter) -> None:
    with pytest.raises(PlatformError, match="manual__7") as caught:
        replace(trained, run_id="manual__7").publish_to(store)

    assert caught.value.failure_code == "result_of_another_run"


def test_a_window_without_time_zone_is_refused(store: AdapterStore, trained: TrainedAdapter) -> None:
    with pytest.raises(ValueError, match="time zone"):
        replace(trained, window_ends_at=datetime(2026, 11, 10, 2)).publish_to(store)


def test_a_changed_file_is_not_published_and_leaves_nothing_behind(
    store: AdapterStore, trained: TrainedAdapter, tmp_path: Path
) -> None:
    before = train_adapter(tmp_path / "before", night(9)).publish_to(store)
    weights = trained.source / "adapter_model.safetensors"
    weights.write_bytes(bytes(len(weights.read_bytes())))

    with pytest.raises(PlatformError) as caught:
        trained.publish_to(store)

    assert caught.value.failure_code == "adapter_files_mismatch"
    assert readers_get(store) == before.version
    assert names_in(store.versions_directory) == [before.version]


def test_a_version_that_was_tampered_with_is_refused_loudly(store: AdapterStore, trained: TrainedAdapter) -> None:
    published = trained.publish_to(store)
    (published.path / "adapter_model.safetensors").write_bytes(b"torn")

    with pytest.raises(PlatformError, match="does not have the hash") as caught:
        trained.publish_to(store)

    assert caught.value.failure_code == "published_adapter_damaged"
    assert str(published.path) in str(caught.value)


def test_a_version_that_holds_another_adapter_is_refused_loudly(store: AdapterStore, trained: TrainedAdapter) -> None:
    published = trained.publish_to(store)
    write_document(published.path / "manifest.json", replace(published.manifest, data_digest="sha256:other"))

    with pytest.raises(PlatformError, match="another adapter") as caught:
        trained.publish_to(store)

    assert caught.value.failure_code == "published_adapter_damaged"


def test_a_version_directory_without_manifest_is_refused_loudly(store: AdapterStore, trained: TrainedAdapter) -> None:
    published = trained.publish_to(store)
    (published.path / "manifest.json").unlink()

    with pytest.raises(PlatformError, match=r"manifest\.json") as caught:
        trained.publish_to(store)

    assert caught.value.failure_code == "published_adapter_damaged"


def test_a_link_in_the_place_of_a_version_is_refused_loudly(
    store: AdapterStore, trained: TrainedAdapter, tmp_path: Path
) -> None:
    published = trained.publish_to(store)
    published.path.rename(tmp_path / "moved")
    published.path.symlink_to(tmp_path / "moved")

    with pytest.raises(PlatformError) as caught:
        trained.publish_to(store)

    assert caught.value.failure_code == "published_adapter_damaged"


def test_a_missing_adapters_directory_is_not_created(tmp_path: Path, trained: TrainedAdapter) -> None:
    store = AdapterStore(tmp_path / "not mounted", "assistant")

    with pytest.raises(PlatformError, match="not mounted") as caught:
        trained.publish_to(store)

    assert caught.value.failure_code == "adapters_directory_missing"
    assert not store.adapters_directory.exists()


@contextmanager
def ordinary_user() -> Iterator[None]:
    """Give up root's rights for a while; permissions mean nothing to root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that every user can reach; pytest's own is closed to others."""
    with tempfile.TemporaryDirectory() as root:
        Path(root).chmod(0o755)
        yield Path(root)


def test_an_adapters_directory_that_cannot_be_written_names_path_owner_and_need(open_directory: Path) -> None:
    trained = train_adapter(open_directory / "attempt-1", night(10))
    adapters_directory = open_directory / "adapters"
    adapters_directory.mkdir()
    adapters_directory.chmod(0o555)

    with ordinary_user(), pytest.raises(PlatformError) as caught:
        trained.publish_to(AdapterStore(adapters_directory, "assistant"))

    assert caught.value.failure_code == "adapter_storage_forbidden"
    owner = f"{adapters_directory.owner()}:{adapters_directory.group()}"
    assert f"{adapters_directory} belongs to {owner} with mode dr-xr-xr-x; needed: rw" in str(caught.value)


def test_an_adapter_that_cannot_be_read_names_the_file(open_directory: Path) -> None:
    trained = train_adapter(open_directory / "attempt-1", night(10))
    weights = trained.source / "adapter_model.safetensors"
    weights.chmod(0o000)
    adapters_directory = open_directory / "adapters"
    adapters_directory.mkdir()
    adapters_directory.chmod(0o777)
    store = AdapterStore(adapters_directory, "assistant")

    with ordinary_user(), pytest.raises(PlatformError, match=str(weights)) as caught:
        trained.publish_to(store)

    assert caught.value.failure_code == "adapter_storage_forbidden"
    assert temporary_paths(store) == []


def test_another_publisher_that_does_not_end_is_an_error_after_the_timeout(
    store: AdapterStore, trained: TrainedAdapter
) -> None:
    store.directory.mkdir()
    holder = os.open(store.directory / ".lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(holder, fcntl.LOCK_EX)
    slept: list[float] = []

    with pytest.raises(InfrastructureError) as caught:
        trained.publish_to(store, lock_timeout_seconds=60, monotonic=lambda: sum(slept), sleep=slept.append)

    os.close(holder)
    assert caught.value.failure_code == "adapter_store_locked"
    assert sum(slept) >= 60
    assert store.versions() == []


def test_every_refusal_has_a_code_and_a_remedy(store: AdapterStore, trained: TrainedAdapter) -> None:
    shutil.rmtree(trained.source)

    with pytest.raises(RetrainingError) as caught:
        trained.publish_to(store)

    assert caught.value.failure_code == "adapter_files_mismatch"
    assert caught.value.remedy
