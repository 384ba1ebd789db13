"""The record of every run, in its own database: what was tried, how far it is, how it ended and why.

Comes in: facts that operators and callbacks observe, in any order and any number of times. Goes out: two tables,
``training_runs`` (one row a DAG run) and ``training_attempts`` (one row a try of a task), read by the admin page and
``peft-retraining runs``.

- ``states``, ``records``, ``merging``, ``run_state``, ``presentation`` are pure: values and the rule that merges them.
- ``tables``, ``migrations``, ``schema``, ``store`` touch the database.

This module imports nothing, so that the pure ones can be had without SQLAlchemy.
"""
