"""The tables of the first release: ``training_runs`` and ``training_attempts``."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "training_runs",
        sa.Column("training_run_id", sa.String(length=16), nullable=False),
        sa.Column("dag_id", sa.String(length=250), nullable=False),
        sa.Column("run_id", sa.String(length=250), nullable=False),
        sa.Column("run_type", sa.String(length=100)),
        sa.Column("adapter_name", sa.String(length=250)),
        sa.Column("triggered_by", sa.String(length=250)),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("queued_at", sa.DateTime(timezone=True)),
        sa.Column("started_at", sa.DateTime(timezone=True)),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.Column("heartbeat_at", sa.DateTime(timezone=True)),
        sa.Column("phase", sa.String(length=100)),
        sa.Column("progress_percentage", sa.Double()),
        sa.Column("estimated_remaining_seconds", sa.Double()),
        sa.Column("new_rows_since", sa.DateTime(timezone=True)),
        sa.Column("window_ends_at", sa.DateTime(timezone=True)),
        sa.Column("new_row_count", sa.BigInteger()),
        sa.Column("train_row_count", sa.BigInteger()),
        sa.Column("heldout_row_count", sa.BigInteger()),
        sa.Column("refused_row_count", sa.BigInteger()),
        sa.Column("refused_row_counts", sa.JSON(none_as_null=True)),
        sa.Column("data_digest", sa.String(length=100)),
        sa.Column("base_model_name_or_path", sa.String(length=4096)),
        sa.Column("base_model_revision", sa.String(length=250)),
        sa.Column("peft_type", sa.String(length=100)),
        sa.Column("base_heldout_loss", sa.Double()),
        sa.Column("adapter_heldout_loss", sa.Double()),
        sa.Column("adapter_version", sa.String(length=250)),
        sa.Column("adapter_path", sa.String(length=4096)),
        sa.Column("moved_latest", sa.Boolean()),
        sa.Column("failure_code", sa.String(length=100)),
        sa.Column("failure_reason", sa.String(length=200)),
        sa.Column("failure_class", sa.String(length=100)),
        sa.Column("retryable", sa.Boolean()),
        sa.Column("remedy", sa.String(length=1000)),
        sa.Column("failed_task_id", sa.String(length=250)),
        sa.Column("run_word", sa.JSON(none_as_null=True)),
        sa.Column("first_observed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("fact_times", sa.JSON(none_as_null=True), nullable=False),
        sa.PrimaryKeyConstraint("training_run_id", name=op.f("pk_training_runs")),
        sa.UniqueConstraint("dag_id", "run_id", name=op.f("uq_training_runs_dag_id_run_id")),
    )
    op.create_index("ix_training_runs_newest", "training_runs", ["first_observed_at", "training_run_id"])
    op.create_index(
        "ix_training_runs_newest_in_state", "training_runs", ["state", "first_observed_at", "training_run_id"]
    )
    op.create_index(
        "ix_training_runs_newest_of_adapter", "training_runs", ["adapter_name", "first_observed_at", "training_run_id"]
    )
    op.create_index(
        "ix_training_runs_newest_of_dag", "training_runs", ["dag_id", "first_observed_at", "training_run_id"]
    )
    op.create_table(
        "training_attempts",
        sa.Column("training_run_id", sa.String(length=16), nullable=False),
        sa.Column("task_id", sa.String(length=250), nullable=False),
        sa.Column("map_index", sa.Integer(), nullable=False),
        sa.Column("try_number", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("queued_at", sa.DateTime(timezone=True)),
        sa.Column("started_at", sa.DateTime(timezone=True)),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.Column("heartbeat_at", sa.DateTime(timezone=True)),
        sa.Column("phase", sa.String(length=100)),
        sa.Column("progress_percentage", sa.Double()),
        sa.Column("estimated_remaining_seconds", sa.Double()),
        sa.Column("global_step", sa.BigInteger()),
        sa.Column("max_steps", sa.BigInteger()),
        sa.Column("metrics", sa.JSON(none_as_null=True)),
        sa.Column("runner", sa.String(length=100)),
        sa.Column("hostname", sa.String(length=250)),
        sa.Column("process_id", sa.BigInteger()),
        sa.Column("container_id", sa.String(length=250)),
        sa.Column("attempt_directory", sa.BigInteger()),
        sa.Column("run_directory", sa.String(length=4096)),
        sa.Column("log_location", sa.String(length=4096)),
        sa.Column("exit_code", sa.BigInteger()),
        sa.Column("signal", sa.BigInteger()),
        sa.Column("oom_killed", sa.Boolean()),
        sa.Column("failure_code", sa.String(length=100)),
        sa.Column("failure_reason", sa.String(length=200)),
        sa.Column("failure_class", sa.String(length=100)),
        sa.Column("retryable", sa.Boolean()),
        sa.Column("remedy", sa.String(length=1000)),
        sa.Column("stdout", sa.JSON(none_as_null=True)),
        sa.Column("stderr", sa.JSON(none_as_null=True)),
        sa.Column("first_observed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("fact_times", sa.JSON(none_as_null=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["training_run_id"],
            ["training_runs.training_run_id"],
            name=op.f("fk_training_attempts_training_runs"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint(
            "training_run_id", "task_id", "map_index", "try_number", name=op.f("pk_training_attempts")
        ),
    )
    op.create_index("ix_training_attempts_heartbeat", "training_attempts", ["state", "heartbeat_at"])
