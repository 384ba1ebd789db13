"""Publishing an adapter: from an attempt's directory to a version, and ``latest`` moved to it.

The order of writing is the promise: a version's files and its manifest under a temporary name, flushed to the disk; the
version's own name; the alias. A crash in between leaves ``latest`` where it was, on a complete version. The lock is
held from the first step to the last, so whatever has a temporary name when a publisher gets it belongs to a dead one.
"""

from __future__ import annotations

import dataclasses
import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from peft_retraining.errors import PlatformError
from peft_retraining.identity import training_run_id
from peft_retraining.publishing.adapter_store import AdapterStore, damaged_version
from peft_retraining.publishing.gate import decide_alias
from peft_retraining.publishing.shared_files import exclusive_lock, is_there, make_shared_directory, write_new_file
from peft_retraining.publishing.staging import check_file_names, copy_verified
from peft_retraining.publishing.storage_errors import Access, storage_errors
from peft_retraining.publishing.version_name import content_digest, version_name
from training_contract.adapter_manifest import MANIFEST_NAME, VERSIONS_NAME, AdapterManifest
from training_contract.documents import to_json_text
from training_contract.durable_files import TEMPORARY_PREFIX, flush_directory, flush_tree, temporary_name
from training_contract.result import TrainingResult

_log = logging.getLogger(__name__)

_LOCK_NAME = ".lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedAdapter:
    """What publishing an adapter came to.

    Attributes:
        version: Name of the version.
        path: Its directory.
        moved_latest: ``True``: this call moved ``latest`` to it.
        is_latest: ``True``: ``latest`` stands for it now, whichever call moved it there.
        alias_reason: Why ``latest`` moved or not, for people.
        manifest: What was published; that of an earlier call when it had published the same.
    """

    version: str
    path: Path
    moved_latest: bool
    is_latest: bool
    alias_reason: str
    manifest: AdapterManifest


def _utc_now() -> datetime:
    return datetime.now(UTC)


def publish(
    store: AdapterStore,
    source: Path,
    result: TrainingResult,
    *,
    dag_id: str,
    run_id: str,
    window_ends_at: datetime,
    lock_timeout_seconds: float = 300.0,
    now: Callable[[], datetime] = _utc_now,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> PublishedAdapter:
    """Publish an attempt's adapter as a version, and move ``latest`` to it unless a newer interval is there.

    Publishing the same again adds nothing and returns the same version, also when ``source`` is gone by then.

    Args:
        store: Where to.
        source: The attempt's adapter directory.
        result: The trainer's result, which vouches for the files.
        dag_id: Airflow's ids of the run that trained it.
        run_id: Likewise.
        window_ends_at: End (exclusive) of the rows it was trained on, with a time zone.
        lock_timeout_seconds: How long to wait for another publisher.
        now: The time of day.
        monotonic: A clock for waiting, in seconds.
        sleep: Waits that many seconds.

    Raises:
        PlatformError: ``result_of_another_run``, ``adapter_files_mismatch``, ``adapters_directory_missing``,
            ``adapter_storage_forbidden``, ``adapter_store_cannot_lock``, ``latest_is_not_a_link``,
            ``published_adapter_damaged``, ``published_by_another_release``.
        InfrastructureError: ``adapter_store_locked``, ``disk_full``, ``adapter_storage_failed``.
        ValueError: ``window_ends_at`` has no time zone.
    """
    check_file_names(result.adapter_files, adapter=str(source))
    candidate = _candidate(store, result, dag_id=dag_id, run_id=run_id, window_end=window_ends_at, published_at=now())
    with storage_errors(store.directory, Access.WRITE):
        _prepare(store)
        lock = store.directory / _LOCK_NAME
        with exclusive_lock(lock, timeout_seconds=lock_timeout_seconds, monotonic=monotonic, sleep=sleep):
            _sweep(store)
            manifest = _published_before(store, candidate) or _add_version(store, source, candidate)
            return _offer_to_latest(store, manifest)


def _candidate(
    store: AdapterStore,
    result: TrainingResult,
    *,
    dag_id: str,
    run_id: str,
    window_end: datetime,
    published_at: datetime,
) -> AdapterManifest:
    if window_end.tzinfo is None:
        raise ValueError(f"window_ends_at needs a time zone: {window_end!r}")
    expected = training_run_id(dag_id, run_id)
    if result.training_run_id != expected:
        raise PlatformError(
            f"the result is of training run {result.training_run_id[:80]!r}, expected {expected} "
            f"(run {run_id!r} of DAG {dag_id!r})",
            failure_code="result_of_another_run",
            remedy="Look for two runs that share one run directory, then clear train_adapter of this run.",
        )
    unnamed = AdapterManifest(
        adapter_name=store.adapter_name,
        version="",
        training_run_id=result.training_run_id,
        dag_id=dag_id,
        run_id=run_id,
        window_ends_at=window_end.astimezone(UTC).isoformat(),
        data_digest=result.data_digest,
        base_model_name_or_path=result.base_model_name_or_path,
        base_model_revision=result.base_model_revision,
        peft_type=result.peft_type,
        base_heldout_loss=result.metrics.base_heldout_loss,
        adapter_heldout_loss=result.metrics.adapter_heldout_loss,
        files=result.adapter_files,
        published_at=published_at.astimezone(UTC).isoformat(),
    )
    return dataclasses.replace(unnamed, version=version_name(window_end, content_digest(unnamed)))


def _prepare(store: AdapterStore) -> None:
    if not store.adapters_directory.is_dir():
        raise PlatformError(
            f"{store.adapters_directory} does not exist or is not a directory; adapters are published there",
            failure_code="adapters_directory_missing",
            remedy="Create or mount it on every worker, writable for the worker's user, or correct the setting "
            "adapters_directory.",
            evidence={"path": str(store.adapters_directory)},
        )
    for directory in (store.directory, store.versions_directory):
        make_shared_directory(directory)
        flush_directory(directory.parent)
    if is_there(store.alias) and not store.alias.is_symlink():
        raise PlatformError(
            f"{store.alias} is not a symbolic link, so it cannot be switched to another version in one step",
            failure_code="latest_is_not_a_link",
            remedy=f"Move {store.alias} away; publishing creates it anew.",
            evidence={"path": str(store.alias)},
        )


def _sweep(store: AdapterStore) -> None:
    """Remove what dead publishers left; where that fails, publishing goes on."""
    for parent in (store.directory, store.versions_directory):
        for path in parent.glob(f"{TEMPORARY_PREFIX}*"):
            try:
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()
            except OSError as error:
                _log.warning("%s was left by a publisher that died, and cannot be removed: %s", path, error)


def _published_before(store: AdapterStore, candidate: AdapterManifest) -> AdapterManifest | None:
    path = store.versions_directory / candidate.version
    if not is_there(path):
        return None
    published = store.verify(candidate.version)
    if content_digest(published) != content_digest(candidate):
        raise damaged_version(path, "it holds another adapter than its name says")
    return published


def _add_version(store: AdapterStore, source: Path, manifest: AdapterManifest) -> AdapterManifest:
    path = store.versions_directory / manifest.version
    stage = temporary_name(path)
    try:
        make_shared_directory(stage)
        copy_verified(source, stage, manifest.files)
        write_new_file(stage / MANIFEST_NAME, [to_json_text(manifest).encode("ascii")])
        flush_tree(stage)
        stage.rename(path)
    except BaseException:
        shutil.rmtree(stage, ignore_errors=True)
        raise
    return manifest


def _offer_to_latest(store: AdapterStore, manifest: AdapterManifest) -> PublishedAdapter:
    """Let the gate decide on ``latest``; flush also what an earlier call may have died before flushing."""
    flush_directory(store.versions_directory)
    current = store.latest()
    decision = decide_alias(current, manifest)
    if decision.move:
        _point_latest_at(store, manifest.version)
    flush_directory(store.directory)
    return PublishedAdapter(
        version=manifest.version,
        path=store.versions_directory / manifest.version,
        moved_latest=decision.move,
        is_latest=decision.move or (current is not None and current.version == manifest.version),
        alias_reason=decision.reason,
        manifest=manifest,
    )


def _point_latest_at(store: AdapterStore, version: str) -> None:
    temporary = temporary_name(store.alias)
    try:
        temporary.symlink_to(Path(VERSIONS_NAME) / version)
        temporary.replace(store.alias)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
