"""The Airflow DAG of a run with the real trainer, on an untrained model of a few thousand parameters."""

from __future__ import annotations

import os

from peft_retraining.configuration import load_settings
from peft_retraining.dag_wiring import build_retraining_dag

dag = build_retraining_dag(
    load_settings(
        dag_id="nightly_real_trainer",
        adapter_name="real",
        trainer_command=os.environ["TEST_REAL_TRAINER_COMMAND"],
        base_model_name_or_path=os.environ["TEST_TINY_MODEL"],
        max_train_rows=24,
        max_length=256,
        num_train_epochs=2,
        learning_rate=1e-2,
        gpu="never",
        cpu_threads=1,
    )
)
