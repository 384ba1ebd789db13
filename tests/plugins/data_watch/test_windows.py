"""Which rows a run is about."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from peft_retraining.data_watch.windows import DataWindow, PublishedWindow, window_for_run

START = datetime(2026, 11, 10, 2, tzinfo=UTC)
END = datetime(2026, 11, 11, 2, tzinfo=UTC)
NOW = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)
PUBLISHED = datetime(2026, 11, 8, 2, tzinfo=UTC)


OWN = "0123456789abcdef"
OTHER = "fedcba9876543210"


def published(*ends: datetime, by: str = OTHER) -> list[PublishedWindow]:
    return [PublishedWindow(training_run_id=by, ends_at=end) for end in ends]


def window(run_type: str, *, interval: bool = True, versions: list[PublishedWindow] | None = None) -> DataWindow:
    return window_for_run(
        training_run_id=OWN,
        run_type=run_type,
        data_interval_start=START if interval else None,
        data_interval_end=END if interval else None,
        run_after=NOW,
        published=published(PUBLISHED) if versions is None else versions,
    )


def test_a_backfill_counts_the_rows_inside_its_own_interval() -> None:
    assert window("backfill") == DataWindow(new_rows_since=START, ends_at=END, may_grow=False)


@pytest.mark.parametrize("run_type", ["scheduled", "manual"])
def test_a_nightly_or_manual_run_counts_since_the_last_published_run(run_type: str) -> None:
    assert window(run_type).new_rows_since == PUBLISHED


def test_without_anything_published_every_row_is_new() -> None:
    assert window("scheduled", versions=[]).new_rows_since is None


def test_only_a_scheduled_run_can_gain_rows_by_waiting() -> None:
    assert window("scheduled").may_grow
    assert not window("manual").may_grow
    assert not window("backfill").may_grow


def test_a_manual_run_without_a_date_ends_when_it_was_started() -> None:
    assert window("manual", interval=False).ends_at == NOW


def test_a_cleared_nightly_run_counts_as_it_did_the_first_time() -> None:
    versions = [*published(END, by=OWN), *published(PUBLISHED, END, END + timedelta(days=1))]

    assert window("scheduled", versions=versions).new_rows_since == PUBLISHED


def test_a_manual_run_after_a_newer_one_was_published_has_nothing_new() -> None:
    later = NOW - timedelta(minutes=1)

    assert window("manual", versions=published(PUBLISHED, later)).new_rows_since == later
    assert later > window("manual").ends_at


def test_a_cleared_manual_run_does_not_see_its_own_result() -> None:
    versions = [*published(NOW, by=OWN), *published(PUBLISHED)]

    assert window("manual", interval=False, versions=versions).new_rows_since == PUBLISHED


def test_times_are_utc_whatever_the_zone_of_the_schedule() -> None:
    zone = timezone(timedelta(hours=5, minutes=30))
    decided = window_for_run(
        training_run_id=OWN,
        run_type="backfill",
        data_interval_start=START.astimezone(zone),
        data_interval_end=END.astimezone(zone),
        run_after=NOW,
        published=[],
    )

    assert decided.ends_at.tzinfo is UTC
    assert decided.ends_at == END
