"""Which rows a run is about: two windows, both decided here and nowhere else.

*New rows* decide whether a retraining is worth while: for a backfill those created inside its data interval; for a
nightly or manual run those created since the last published run, so that a trickle adds up over the nights. A nightly
run counts from the last one published for an earlier interval, also when it is cleared later; a manual run counts from
the last one published at all.

*Training rows* are what the adapter learns from: the newest usable ones created before the end of the window, however
old. A row from after the end is never used, so that a backfill of an old day trains what that day could have trained.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class DataWindow:
    """The rows a run is about.

    Attributes:
        new_rows_since: Start (inclusive) of the new rows; ``None``: from the first row on.
        ends_at: End (exclusive) of the new rows and of the training rows.
        may_grow: Whether waiting can help: rows of a scheduled interval can arrive late.
    """

    new_rows_since: datetime | None
    ends_at: datetime
    may_grow: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedWindow:
    """The window of a published version.

    Attributes:
        training_run_id: The run that it is of.
        ends_at: End (exclusive) of its rows.
    """

    training_run_id: str
    ends_at: datetime


def window_for_run(
    *,
    training_run_id: str,
    run_type: str,
    data_interval_start: datetime | None,
    data_interval_end: datetime | None,
    run_after: datetime,
    published: Iterable[PublishedWindow],
) -> DataWindow:
    """Decide the window of a DAG run.

    Args:
        training_run_id: Of this run: a run that is cleared must not take its own earlier result for the last one.
        run_type: Airflow's: ``"scheduled"``, ``"backfill"``, ``"manual"``, ``"asset_triggered"``, ...
        data_interval_start: Start of the run's data interval; ``None`` for a manual run without a date.
        data_interval_end: Its end, likewise.
        run_after: When the run could start; takes the place of a missing interval's end.
        published: Windows of all published versions of the adapter.
    """
    ends_at = (data_interval_end or run_after).astimezone(UTC)
    if run_type == "backfill" and data_interval_start is not None:
        return DataWindow(new_rows_since=data_interval_start.astimezone(UTC), ends_at=ends_at, may_grow=False)
    is_scheduled = run_type == "scheduled"
    earlier = [
        version.ends_at.astimezone(UTC)
        for version in published
        if version.training_run_id != training_run_id and (version.ends_at < ends_at or not is_scheduled)
    ]
    return DataWindow(new_rows_since=max(earlier, default=None), ends_at=ends_at, may_grow=is_scheduled)
