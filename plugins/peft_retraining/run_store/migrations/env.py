"""What Alembic executes around the migrations: they run on the connection that ``schema.upgrade_schema`` hands over."""

from __future__ import annotations

from alembic import context

from peft_retraining.run_store.schema import VERSION_TABLE
from peft_retraining.run_store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    render_as_batch=True,  # SQLite alters a table by copying it
)
with context.begin_transaction():
    context.run_migrations()
