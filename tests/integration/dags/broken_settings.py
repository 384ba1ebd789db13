"""Airflow DAGs with one thing wrong each, for ``test_bad_input.py``."""

from __future__ import annotations

from peft_retraining.configuration import load_settings
from peft_retraining.dag_wiring import build_retraining_dag

for name, overrides in {
    "missing_database": {"labelled_data_conn_id": "missing_database"},
    "unreachable_database": {"labelled_data_conn_id": "unreachable_database"},
    "missing_connection": {"labelled_data_conn_id": "never_defined"},
    "missing_table": {"labelled_table": "ask_ai_querys"},
    "missing_column": {"completion_column": "answers"},
    "no_usable_rows": {"labelled_data_conn_id": "unusable_rows"},
    "unwritable_runs": {"runs_directory": "/proc/runs"},
    "unknown_peft_type": {"peft_type": "NO_SUCH_TYPE"},
    "missing_trainer": {"trainer_command": "/nonexistent/bin/python -m peft_trainer"},
    "broken_trainer": {"trainer_command": "/bin/false"},
    "docker_runner": {"runner": "docker"},
}.items():
    globals()[name] = build_retraining_dag(load_settings(dag_id=name, adapter_name="never_published", **overrides))
