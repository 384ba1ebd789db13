"""Freezes rows into the run directory: written under a temporary name, made durable, renamed."""

from __future__ import annotations

import errno
import hashlib
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path

from peft_retraining.data_watch.labelled_row import LabelledRow
from peft_retraining.data_watch.windows import DataWindow
from peft_retraining.errors import InfrastructureError, PlatformError, UserError
from peft_retraining.settings import Settings
from peft_retraining.snapshots.heldout import heldout_prompts, normalise_prompt
from peft_retraining.snapshots.judging import Conversation, RefusalReason, RowRefused, judge_row
from training_contract.documents import read_document, write_document
from training_contract.durable_files import TEMPORARY_PREFIX, flush_directory, flush_tree, temporary_name
from training_contract.errors import ContractError
from training_contract.locations import DIRECTORY_MODE, RunDirectory
from training_contract.snapshot import ROW_COLUMNS, RowsDigest, SnapshotManifest, Split

_HARMLESS = frozenset({RefusalReason.DUPLICATE, RefusalReason.CREATED_AT_UNREADABLE})
"""Repetition is no sign of broken data; rows without a time are those of the whole table, not of the newest ones."""

MIN_DISTINCT_PROMPTS = 2
"""One prompt to train on and one to judge with."""


def prepare_run_directory(run_directory: RunDirectory) -> None:
    """Create the run directory of a DAG run, or check that it can be written.

    Raises:
        PlatformError: It cannot be created or written.
    """
    root = run_directory.root
    runs_directory = root.parent.parent
    try:
        for directory in (runs_directory, root.parent, root):
            if not directory.is_dir():
                directory.mkdir(parents=True, exist_ok=True)
                directory.chmod(DIRECTORY_MODE)
        probe = temporary_name(root / "probe")
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise PlatformError(
            f"the run directory {root} cannot be written: {error.strerror or error}",
            failure_code="run_directory_unwritable",
            remedy=f"Make {runs_directory} (setting runs_directory) writable for the Airflow worker's user.",
            evidence={"path": str(root)},
        ) from error


def existing_snapshot(run_directory: RunDirectory, query: Mapping[str, str]) -> SnapshotManifest | None:
    """Return the snapshot that this DAG run has frozen already, when it asked the same.

    Rows are frozen once for a DAG run: a retry, a clear or a reprocessed backfill trains the same rows.

    Args:
        run_directory: Of the DAG run.
        query: What is asked now, from ``snapshot_query``.
    """
    try:
        manifest = read_document(run_directory.snapshot_file, SnapshotManifest)
    except ContractError:
        return None
    same_question = dict(manifest.query) == dict(query)
    return manifest if same_question and _digest_of(run_directory) == manifest.digest else None


def snapshot_query(settings: Settings, window: DataWindow) -> dict[str, str]:
    """Say what a snapshot asks for, so that a later run can tell whether it asks the same."""
    return {
        "connection": settings.labelled_data_conn_id,
        "table": settings.labelled_table,
        "prompt_column": settings.prompt_column,
        "completion_column": settings.completion_column,
        "completion_format": settings.completion_format.value,
        "created_at_column": settings.created_at_column,
        "ends_at": window.ends_at.isoformat(),
        "max_train_rows": str(settings.max_train_rows),
        "heldout_fraction": str(settings.heldout_fraction),
    }


def freeze_rows(
    rows: Iterable[LabelledRow],
    run_directory: RunDirectory,
    *,
    settings: Settings,
    window: DataWindow,
    frozen_at: datetime,
) -> SnapshotManifest:
    """Judge, split and freeze rows; the newest usable ones, ``max_train_rows`` at most.

    Args:
        rows: Newest first; those with an unreadable time before all others.
        run_directory: Where the snapshot goes; an older one there is replaced.
        settings: How many rows, which share is held out, how answers are stored.
        window: The rows' window, for the record.
        frozen_at: Now.

    Raises:
        UserError: No usable rows, or too many unusable ones.
        InfrastructureError: No space is left, or the file system fails.
    """
    refused: Counter[str] = Counter()
    usable = list(_usable(rows, settings, refused))
    _refuse_broken_data(usable, refused, settings)
    heldout = heldout_prompts((row.prompt for row in usable), settings.heldout_fraction)
    splits = [Split.HELDOUT if normalise_prompt(row.prompt) in heldout else Split.TRAIN for row in usable]
    records = [
        {
            "source_id": row.source_id,
            "created_at": row.created_at,
            "prompt": row.prompt,
            "completion": row.completion,
            "split": split.value,
        }
        for row, split in zip(usable, splits, strict=True)
    ]
    digest = RowsDigest()
    for record in records:
        digest.add(record)
    manifest = SnapshotManifest(
        digest=str(digest),
        train_row_count=splits.count(Split.TRAIN),
        heldout_row_count=splits.count(Split.HELDOUT),
        refused_row_counts=dict(sorted(refused.items())),
        new_rows_since=window.new_rows_since.isoformat() if window.new_rows_since else None,
        window_ends_at=window.ends_at.isoformat(),
        oldest_row_at=min(row.created_at for row in usable),
        newest_row_at=max(row.created_at for row in usable),
        frozen_at=frozen_at.isoformat(),
        query=snapshot_query(settings, window),
    )
    _write_snapshot(run_directory, records, manifest)
    return manifest


def _usable(rows: Iterable[LabelledRow], settings: Settings, refused: Counter[str]) -> Iterator[Conversation]:
    seen: set[bytes] = set()
    count = 0
    for row in rows:
        try:
            conversation = judge_row(row, settings.completion_format)
            key = hashlib.sha256(f"{conversation.prompt}\x00{conversation.completion}".encode()).digest()
            if key in seen:
                raise RowRefused(RefusalReason.DUPLICATE)
        except RowRefused as refusal:
            refused[refusal.reason.value] += 1
            continue
        seen.add(key)
        yield conversation
        count += 1
        if count >= settings.max_train_rows:
            return


def _refuse_broken_data(usable: list[Conversation], refused: Mapping[str, int], settings: Settings) -> None:
    broken_count = sum(count for reason, count in refused.items() if reason not in _HARMLESS)
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(refused.items())) or "none"
    prompt_count = len({normalise_prompt(row.prompt) for row in usable})
    if prompt_count < MIN_DISTINCT_PROMPTS:
        raise UserError(
            f"{len(usable)} usable rows with {prompt_count} different prompts; at least {MIN_DISTINCT_PROMPTS} are "
            f"needed, one to train on and one to judge with; refused rows: {reasons}",
            failure_code="no_usable_rows",
            remedy="Look at the refused rows in the labelled table, and at the settings of its columns and format.",
            evidence=dict(refused),
        )
    read_count = len(usable) + broken_count
    share = broken_count / read_count
    if share > settings.max_refused_fraction:
        raise UserError(
            f"{broken_count} of {read_count} rows are unusable ({share:.0%}), "
            f"at most {settings.max_refused_fraction:.0%} are allowed; refused: {reasons}",
            failure_code="too_many_refused_rows",
            remedy="Repair the labelled table, or raise the setting max_refused_fraction if this is how it should be.",
            evidence=dict(refused),
        )


def _write_snapshot(run_directory: RunDirectory, records: list[dict[str, str]], manifest: SnapshotManifest) -> None:
    import pyarrow as pa  # noqa: PLC0415 - heavy: only the worker that writes a snapshot loads it
    import pyarrow.parquet as pq  # noqa: PLC0415

    final = run_directory.snapshot_directory
    _sweep_temporary(run_directory.root)
    stage = temporary_name(final)
    try:
        stage.mkdir()
        stage.chmod(DIRECTORY_MODE)
        schema = pa.schema([(column, pa.string()) for column in ROW_COLUMNS])
        pq.write_table(pa.Table.from_pylist(records, schema=schema), stage / run_directory.rows_file.name)
        write_document(stage / run_directory.snapshot_file.name, manifest)
        flush_tree(stage)
        if final.exists():
            final.rename(temporary_name(final))
        stage.rename(final)
        flush_directory(run_directory.root)
    except OSError as error:
        shutil.rmtree(stage, ignore_errors=True)
        raise InfrastructureError(
            f"the snapshot cannot be written to {final}: {error.strerror or error}",
            failure_code="disk_full" if _is_disk_full(error) else "snapshot_unwritable",
            remedy=f"Free space on, or repair, the file system of {run_directory.root} (setting runs_directory).",
        ) from error
    _sweep_temporary(run_directory.root)


def _digest_of(run_directory: RunDirectory) -> str | None:
    """Return the digest of the rows that are there; ``None`` when they cannot be read."""
    import pyarrow as pa  # noqa: PLC0415 - as above
    import pyarrow.parquet as pq  # noqa: PLC0415

    digest = RowsDigest()
    try:
        for batch in pq.ParquetFile(run_directory.rows_file).iter_batches(columns=list(ROW_COLUMNS)):
            for row in batch.to_pylist():
                digest.add(row)
    except (OSError, pa.ArrowException, KeyError):
        return None
    return str(digest)


def _sweep_temporary(root: Path) -> None:
    """Remove what an earlier, killed try of this task left behind; nobody else writes snapshots here."""
    for leftover in root.glob(f"{TEMPORARY_PREFIX}snapshot-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _is_disk_full(error: OSError) -> bool:
    return error.errno in (errno.ENOSPC, errno.EDQUOT)
