"""Waits in the triggerer until there are enough new labelled rows, or until waiting is over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async

from peft_retraining.connections import labelled_data_engine
from peft_retraining.data_watch.labelled_table import LabelledRows, LabelledTable
from peft_retraining.data_watch.windows import DataWindow
from peft_retraining.errors import InfrastructureError, RetrainingError

_FIRST_PAUSE_SECONDS = 10.0
_LOOK_LIMIT_SECONDS = 600.0


class LabelledDataTrigger(BaseTrigger):
    """Looks at the labelled table again and again.

    Its event holds ``new_row_count`` when it could count, and ``failure`` when the last look failed.
    """

    def __init__(
        self,
        *,
        conn_id: str,
        table: dict[str, str],
        new_rows_since: str | None,
        ends_at: str,
        min_new_rows: int,
        poll_interval_seconds: float,
        deadline_at: str,
    ) -> None:
        """Say what to wait for.

        Args:
            conn_id: Airflow connection of the labelled data.
            table: Fields of ``LabelledTable``.
            new_rows_since: Start (inclusive) of the new rows, ISO 8601; ``None``: from the first row on.
            ends_at: End (exclusive) of the new rows.
            min_new_rows: How many are enough.
            poll_interval_seconds: Pause between two looks.
            deadline_at: When waiting is over, ISO 8601.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        self._arguments: dict[str, Any] = {
            "conn_id": conn_id,
            "table": table,
            "new_rows_since": new_rows_since,
            "ends_at": ends_at,
            "min_new_rows": min_new_rows,
            "poll_interval_seconds": poll_interval_seconds,
            "deadline_at": deadline_at,
        }

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments, as Airflow stores them."""
        return f"{type(self).__module__}.{type(self).__qualname__}", self._arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event: enough rows, the deadline, or a failure that waiting cannot mend."""
        deadline = datetime.fromisoformat(self._arguments["deadline_at"])
        # The worker has just looked. And Airflow 3.3.2 fails a task whose trigger fires before the scheduler has seen
        # the end of the process that deferred it, which takes up to a heartbeat.
        await asyncio.sleep(
            max(0.0, min(max(_FIRST_PAUSE_SECONDS, self._arguments["poll_interval_seconds"]), _seconds_until(deadline)))
        )
        while True:
            answer = await self._look_in_a_thread()
            remaining_seconds = _seconds_until(deadline)
            enough = answer.get("new_row_count", 0) >= self._arguments["min_new_rows"]
            final = "failure" in answer and not answer["failure"]["retryable"]
            if enough or final or remaining_seconds <= 0:
                yield TriggerEvent(answer)  # type: ignore[no-untyped-call]
                return
            await asyncio.sleep(min(self._arguments["poll_interval_seconds"], remaining_seconds))

    async def _look_in_a_thread(self) -> dict[str, Any]:
        # A thread of its own: the shared one is where all other triggers ask Airflow for their connections.
        look = sync_to_async(self._look, thread_sensitive=False)
        try:
            return await asyncio.wait_for(look(), _LOOK_LIMIT_SECONDS)
        except TimeoutError:
            error = InfrastructureError(
                f"counting the new rows of {self._arguments['table']['table']!r} took longer than "
                f"{_LOOK_LIMIT_SECONDS:.0f} s",
                failure_code="labelled_data_unavailable",
                remedy="See whether somebody holds a lock on the table, and whether its time column has an index.",
            )
            return {"failure": _as_json(error)}

    def _look(self) -> dict[str, Any]:
        since = self._arguments["new_rows_since"]
        window = DataWindow(
            new_rows_since=datetime.fromisoformat(since) if since else None,
            ends_at=datetime.fromisoformat(self._arguments["ends_at"]),
            may_grow=True,
        )
        try:
            engine = labelled_data_engine(self._arguments["conn_id"])
            try:
                rows = LabelledRows(engine, LabelledTable(**self._arguments["table"]))
                return {"new_row_count": rows.count_new(window)}
            finally:
                engine.dispose()
        except RetrainingError as error:
            return {"failure": _as_json(error)}


def _seconds_until(moment: datetime) -> float:
    return (moment - datetime.now(UTC)).total_seconds()


def _as_json(error: RetrainingError) -> dict[str, Any]:
    return {
        "message": str(error),
        "failure_code": error.failure_code,
        "failure_class": error.failure_class.value,
        "retryable": error.retryable,
        "remedy": error.remedy,
    }
