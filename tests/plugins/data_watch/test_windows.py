"""Which rows a run is about."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from peft_retraining.data_watch.windows import DataWindow, window_for_run

START = datetime(2026, 11, 10, 2, tzinfo=UTC)
END = datetime(2026, 11, 11, 2, tzinfo=UTC)
NOW = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)
PUBLISHED = datetime(2026, 11, 8, 2, tzinfo=UTC)


def window(run_type: str, *, interval: bool = True, published: datetime | None = PUBLISHED) -> DataWindow:
    return window_for_run(
        run_type=run_type,
        data_interval_start=START if interval else None,
        data_interval_end=END if interval else None,
        run_after=NOW,
        newest_published_before=lambda _: published,
    )


def test_a_backfill_counts_the_rows_inside_its_own_interval() -> None:
    assert window("backfill") == DataWindow(new_rows_since=START, ends_at=END, may_grow=False)


@pytest.mark.parametrize("run_type", ["scheduled", "manual"])
def test_a_nightly_or_manual_run_counts_since_the_last_published_run(run_type: str) -> None:
    assert window(run_type).new_rows_since == PUBLISHED


def test_without_anything_published_every_row_is_new() -> None:
    assert window("scheduled", published=None).new_rows_since is None


def test_only_a_scheduled_run_can_gain_rows_by_waiting() -> None:
    assert window("scheduled").may_grow
    assert not window("manual").may_grow
    assert not window("backfill").may_grow


def test_a_manual_run_without_a_date_ends_when_it_was_started() -> None:
    assert window("manual", interval=False).ends_at == NOW


def test_the_last_published_run_is_looked_for_before_the_runs_own_end() -> None:
    asked: list[datetime] = []

    def newest_published_before(moment: datetime) -> None:
        asked.append(moment)

    window_for_run(
        run_type="scheduled",
        data_interval_start=START,
        data_interval_end=END,
        run_after=NOW,
        newest_published_before=newest_published_before,
    )

    assert asked == [END]


def test_times_are_utc_whatever_the_zone_of_the_schedule() -> None:
    zone = timezone(timedelta(hours=5, minutes=30))
    decided = window_for_run(
        run_type="backfill",
        data_interval_start=START.astimezone(zone),
        data_interval_end=END.astimezone(zone),
        run_after=NOW,
        newest_published_before=lambda _: None,
    )

    assert decided.ends_at.tzinfo is UTC
    assert decided.ends_at == END
