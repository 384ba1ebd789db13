"""A second adapter in Airflow is one more short DAG file."""

from __future__ import annotations

from peft_retraining.configuration import load_settings
from peft_retraining.dag_wiring import build_retraining_dag

dag = build_retraining_dag(load_settings(dag_id="nightly_second_adapter", adapter_name="second"))
