"""Airflow DAGs for ``test_nightly_user.py``: two that run by their schedule, one for each fate of a training."""

from __future__ import annotations

from peft_retraining.configuration import load_settings
from peft_retraining.dag_wiring import build_retraining_dag

# The schedule began long ago, so switching one on makes Airflow run the last complete interval at once.
SCHEDULED = {"start_date": "2026-01-01", "data_poll_interval_seconds": 1}
RETRIED = {"retries": 1, "retry_delay_seconds": 1}

# Waits at least 10 seconds: Airflow 3.3 fails a deferred task that resumes before the scheduler has heard of its first
# process's end, which Airflow's supervisor may tell 5 seconds late.
for name, overrides in {
    "late_rows": {**SCHEDULED, "labelled_data_conn_id": "late_rows", "data_wait_seconds": 120},
    "too_few_rows": {**SCHEDULED, "labelled_data_conn_id": "too_few_rows", "data_wait_seconds": 10},
    "fails_once": {**RETRIED, "peft_settings": {"behaviour": "fail_once"}},
    "fails_for_good": {**RETRIED, "peft_settings": {"behaviour": "fail"}},
    "cleared": {"labelled_data_conn_id": "cleared", "peft_settings": {"behaviour": "other_weights_each_attempt"}},
}.items():
    globals()[name] = build_retraining_dag(load_settings(dag_id=name, adapter_name=name, **overrides))
