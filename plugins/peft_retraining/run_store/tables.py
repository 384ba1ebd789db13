"""The two tables, as SQLAlchemy sees them; ``migrations`` makes them, and a test holds the two together."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
)
from sqlalchemy.types import TypeDecorator

from peft_retraining.run_store.records import (
    MAX_ID_CHARACTERS,
    MAX_NAME_CHARACTERS,
    MAX_PATH_CHARACTERS,
    MAX_REASON_CHARACTERS,
)
from peft_retraining.run_store.stored_values import MAX_TEXT_CHARACTERS, as_utc


class UtcDateTime(TypeDecorator[datetime]):
    """A moment: in with a zone, out in UTC.

    The column is the database's own type for times, so that people can compute with it in SQL: ``timestamptz`` in
    PostgreSQL; SQLite has no zones and gets the time in UTC, in ISO text that sorts as the times do.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse a naive time; give SQLite the time in UTC, without the zone that it cannot keep."""
        if value is None:
            return None
        moment = as_utc(value)
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return the time in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    }
)

_ID = String(MAX_ID_CHARACTERS)
_NAME = String(MAX_NAME_CHARACTERS)
_PATH = String(MAX_PATH_CHARACTERS)
_TEXT = String(MAX_TEXT_CHARACTERS)
_STATE = String(16)
_DOCUMENT = JSON(none_as_null=True)


def _failure_columns() -> list[Column[object]]:
    return [
        Column("failure_code", _NAME),
        Column("failure_reason", String(MAX_REASON_CHARACTERS)),
        Column("failure_class", _NAME),
        Column("retryable", Boolean),
        Column("remedy", _TEXT),
    ]


def _merge_columns() -> list[Column[object]]:
    """Return what the merge rule needs: when the row, and each fact in it, was observed."""
    return [
        Column("first_observed_at", UtcDateTime, nullable=False),
        Column("updated_at", UtcDateTime, nullable=False),
        Column("fact_times", _DOCUMENT, nullable=False),
    ]


training_runs = Table(
    "training_runs",
    metadata,
    Column("training_run_id", String(16), primary_key=True),
    Column("dag_id", _ID, nullable=False),
    Column("run_id", _ID, nullable=False),
    Column("run_type", _NAME),
    Column("adapter_name", _ID),
    Column("triggered_by", _ID),
    Column("state", _STATE, nullable=False),
    Column("queued_at", UtcDateTime),
    Column("started_at", UtcDateTime),
    Column("ended_at", UtcDateTime),
    Column("heartbeat_at", UtcDateTime),
    Column("phase", _NAME),
    Column("progress_percentage", Double),
    Column("estimated_remaining_seconds", Double),
    Column("new_rows_since", UtcDateTime),
    Column("window_ends_at", UtcDateTime),
    Column("new_row_count", BigInteger),
    Column("train_row_count", BigInteger),
    Column("heldout_row_count", BigInteger),
    Column("refused_row_count", BigInteger),
    Column("refused_row_counts", _DOCUMENT),
    Column("data_digest", _NAME),
    Column("base_model_name_or_path", _PATH),
    Column("base_model_revision", _ID),
    Column("peft_type", _NAME),
    Column("base_heldout_loss", Double),
    Column("adapter_heldout_loss", Double),
    Column("adapter_version", _ID),
    Column("adapter_path", _PATH),
    Column("moved_latest", Boolean),
    *_failure_columns(),
    Column("failed_task_id", _ID),
    Column("run_word", _DOCUMENT),
    *_merge_columns(),
    UniqueConstraint("dag_id", "run_id"),
    # Lists are newest first, page by key (first_observed_at, training_run_id), and filter by one of these.
    Index("ix_training_runs_newest", "first_observed_at", "training_run_id"),
    Index("ix_training_runs_newest_of_dag", "dag_id", "first_observed_at", "training_run_id"),
    Index("ix_training_runs_newest_in_state", "state", "first_observed_at", "training_run_id"),
    Index("ix_training_runs_newest_of_adapter", "adapter_name", "first_observed_at", "training_run_id"),
)

training_attempts = Table(
    "training_attempts",
    metadata,
    Column(
        "training_run_id", String(16), ForeignKey("training_runs.training_run_id", ondelete="CASCADE"), primary_key=True
    ),
    Column("task_id", _ID, primary_key=True),
    Column("map_index", Integer, primary_key=True),
    Column("try_number", Integer, primary_key=True),
    Column("state", _STATE, nullable=False),
    Column("queued_at", UtcDateTime),
    Column("started_at", UtcDateTime),
    Column("ended_at", UtcDateTime),
    Column("heartbeat_at", UtcDateTime),
    Column("phase", _NAME),
    Column("progress_percentage", Double),
    Column("estimated_remaining_seconds", Double),
    Column("global_step", BigInteger),
    Column("max_steps", BigInteger),
    Column("metrics", _DOCUMENT),
    Column("runner", _NAME),
    Column("hostname", _ID),
    Column("process_id", BigInteger),
    Column("container_id", _ID),
    Column("attempt_directory", BigInteger),
    Column("run_directory", _PATH),
    Column("log_location", _PATH),
    Column("exit_code", BigInteger),
    Column("signal", BigInteger),
    Column("oom_killed", Boolean),
    *_failure_columns(),
    Column("stdout", _DOCUMENT),
    Column("stderr", _DOCUMENT),
    *_merge_columns(),
    # Who looks for tries that stopped giving signs of life asks by these.
    Index("ix_training_attempts_heartbeat", "state", "heartbeat_at"),
)
