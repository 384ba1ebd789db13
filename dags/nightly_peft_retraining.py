"""The nightly retraining as an Airflow DAG.

Settings come from the section ``[peft_retraining]`` of the Airflow configuration. For a second adapter, copy this file
and give ``load_settings`` what differs, at least ``dag_id`` and ``adapter_name``.
"""

from __future__ import annotations

from peft_retraining.configuration import load_settings
from peft_retraining.dag_wiring import build_retraining_dag

dag = build_retraining_dag(load_settings())
