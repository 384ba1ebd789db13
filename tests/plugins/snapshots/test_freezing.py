"""Freezing rows into the run directory."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from peft_retraining.data_watch.labelled_row import LabelledRow
from peft_retraining.data_watch.windows import DataWindow
from peft_retraining.errors import PlatformError, UserError
from peft_retraining.settings import CompletionFormat, Settings
from peft_retraining.snapshots.freezing import existing_snapshot, freeze_rows, prepare_run_directory, snapshot_query
from peft_retraining.snapshots.heldout import normalise_prompt
from training_contract.documents import read_document
from training_contract.durable_files import TEMPORARY_PREFIX
from training_contract.locations import RunDirectory
from training_contract.snapshot import ROW_COLUMNS, RowsDigest, SnapshotManifest

END = datetime(2026, 11, 11, 2, tzinfo=UTC)
NOW = datetime(2026, 11, 11, 2, 5, tzinfo=UTC)
WINDOW = DataWindow(new_rows_since=None, ends_at=END, may_grow=True)
SETTINGS = Settings(completion_format=CompletionFormat.TEXT, max_train_rows=50)


def rows(count: int, *, unusable: int = 0) -> Iterator[LabelledRow]:
    for number in range(unusable):
        yield LabelledRow(
            source_id=f"bad {number}", created_at="2026-11-10T00:00:00+00:00", prompt=None, completion="a"
        )
    for number in range(count):
        yield LabelledRow(
            source_id=str(number),
            created_at=f"2026-11-{10 - number % 9:02d}T00:00:00+00:00",
            prompt=f"question {number}",
            completion=f"answer {number}",
        )


@pytest.fixture
def run_directory(tmp_path: Path) -> RunDirectory:
    directory = RunDirectory(tmp_path / "runs" / "dag" / "run")
    prepare_run_directory(directory)
    return directory


def freeze(
    run_directory: RunDirectory, source: Iterator[LabelledRow], settings: Settings = SETTINGS
) -> SnapshotManifest:
    return freeze_rows(source, run_directory, settings=settings, window=WINDOW, frozen_at=NOW)


def frozen(run_directory: RunDirectory) -> list[dict[str, str]]:
    return pq.read_table(run_directory.rows_file).to_pylist()


def test_the_newest_usable_rows_are_frozen_and_no_more_are_read(run_directory: RunDirectory) -> None:
    source = rows(500)

    manifest = freeze(run_directory, source)

    assert manifest.row_count == 50
    assert [row["source_id"] for row in frozen(run_directory)] == [str(number) for number in range(50)]
    assert next(source).source_id == "50"


def test_the_manifest_counts_what_was_refused_by_reason(run_directory: RunDirectory) -> None:
    manifest = freeze(run_directory, rows(20, unusable=3))

    assert manifest.refused_row_counts == {"prompt_missing": 3}
    assert read_document(run_directory.snapshot_file, SnapshotManifest) == manifest


def test_no_prompt_is_both_trained_on_and_judged_with(run_directory: RunDirectory) -> None:
    doubled = [
        row for row in rows(40) for row in (row, dataclasses.replace(row, prompt=row.prompt.upper(), completion="b"))
    ]
    freeze(run_directory, iter(doubled))

    sides: dict[str, set[str]] = {}
    for row in frozen(run_directory):
        sides.setdefault(normalise_prompt(row["prompt"]), set()).add(row["split"])
    assert all(len(side) == 1 for side in sides.values())


def test_a_repeated_conversation_is_frozen_once(run_directory: RunDirectory) -> None:
    manifest = freeze(run_directory, iter([*rows(10), *rows(10)]))

    assert manifest.row_count == 10
    assert manifest.refused_row_counts == {"duplicate": 10}


def test_the_digest_is_over_the_rows_and_can_be_checked_by_the_reader(run_directory: RunDirectory) -> None:
    manifest = freeze(run_directory, rows(10))
    digest = RowsDigest()
    for row in frozen(run_directory):
        digest.add(row)

    assert manifest.digest == str(digest)
    assert pq.read_schema(run_directory.rows_file).names == list(ROW_COLUMNS)


def test_the_same_rows_give_the_same_digest_and_one_other_letter_another(run_directory: RunDirectory) -> None:
    first = freeze(run_directory, rows(10)).digest
    again = freeze(run_directory, rows(10)).digest
    changed = freeze(
        run_directory, (dataclasses.replace(row, completion=row.completion + ".") for row in rows(10))
    ).digest

    assert first == again != changed


def test_no_rows_at_all_is_an_error_that_counts_the_refused(run_directory: RunDirectory) -> None:
    with pytest.raises(UserError, match="prompt_missing 4") as caught:
        freeze(run_directory, rows(0, unusable=4))

    assert caught.value.failure_code == "no_usable_rows"
    assert not run_directory.snapshot_directory.exists()


def test_a_single_question_cannot_be_trained_on_and_judged_with(run_directory: RunDirectory) -> None:
    same = (dataclasses.replace(row, prompt="always the same") for row in rows(10))

    with pytest.raises(UserError, match="1 different prompts"):
        freeze(run_directory, same)


def test_mostly_unusable_rows_are_taken_for_broken_data(run_directory: RunDirectory) -> None:
    with pytest.raises(UserError, match=r"11 of 21 rows are unusable \(52%\)") as caught:
        freeze(run_directory, rows(10, unusable=11))

    assert caught.value.failure_code == "too_many_refused_rows"


def test_old_rows_without_a_time_are_counted_and_do_not_block_every_night(run_directory: RunDirectory) -> None:
    timeless = (dataclasses.replace(row, created_at=None) for row in rows(30))

    manifest = freeze(run_directory, (row for part in (timeless, rows(10)) for row in part))

    assert manifest.refused_row_counts == {"created_at_unreadable": 30}


def test_a_snapshot_whose_rows_were_changed_does_not_count(run_directory: RunDirectory) -> None:
    freeze(run_directory, rows(10))
    table = pq.read_table(run_directory.rows_file)
    pq.write_table(table.slice(1), run_directory.rows_file)

    assert existing_snapshot(run_directory, snapshot_query(SETTINGS, WINDOW)) is None


def test_a_snapshot_is_found_again_only_for_the_same_question(run_directory: RunDirectory) -> None:
    manifest = freeze(run_directory, rows(10))
    other = snapshot_query(dataclasses.replace(SETTINGS, max_train_rows=7), WINDOW)

    assert existing_snapshot(run_directory, snapshot_query(SETTINGS, WINDOW)) == manifest
    assert existing_snapshot(run_directory, other) is None


def test_a_snapshot_without_its_rows_does_not_count(run_directory: RunDirectory) -> None:
    freeze(run_directory, rows(10))
    run_directory.rows_file.unlink()

    assert existing_snapshot(run_directory, snapshot_query(SETTINGS, WINDOW)) is None


def test_leftovers_of_a_killed_try_are_swept(run_directory: RunDirectory) -> None:
    leftover = run_directory.root / f"{TEMPORARY_PREFIX}snapshot-1-ab"
    leftover.mkdir()

    freeze(run_directory, rows(10))

    assert sorted(entry.name for entry in run_directory.root.iterdir()) == ["snapshot"]


def test_people_s_text_is_not_readable_for_others(run_directory: RunDirectory) -> None:
    freeze(run_directory, rows(10))

    assert run_directory.root.stat().st_mode & 0o007 == 0


def test_an_unwritable_run_directory_names_the_path_and_the_setting(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file where a directory should be")

    with pytest.raises(PlatformError, match="runs") as caught:
        prepare_run_directory(RunDirectory(tmp_path / "runs" / "dag" / "run"))

    assert caught.value.failure_code == "run_directory_unwritable"
    assert "runs_directory" in caught.value.remedy
