"""Where the demo keeps things, and how its Airflow is set up."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
DEMO_DIRECTORY = REPOSITORY / ".demo"
AIRFLOW_HOME = DEMO_DIRECTORY / "airflow"
LABELLED_DATABASE = DEMO_DIRECTORY / "labelled_data.db"
BASE_MODEL = REPOSITORY / ".cache" / "models" / "SmolLM2-135M-Instruct"
TRAINER_PYTHON = REPOSITORY / ".venv-trainer" / "bin" / "python"
DAG_ID = "nightly_peft_retraining"
ADAPTER_NAME = "assistant"


def demo_environment(home: Path, *, runner: str) -> dict[str, str]:
    """Return the environment that makes an Airflow run the sample job.

    Args:
        home: The Airflow home; runs and adapters lie below it.
        runner: The setting ``runner``.
    """
    settings = {
        "runner": runner,
        "trainer_command": f"{TRAINER_PYTHON} -m peft_trainer",
        "base_model_name_or_path": str(BASE_MODEL),
        "adapter_name": ADAPTER_NAME,
        # Small steps and one pass: on a CPU more updates beat larger batches (docs/explanation/training-choices.md).
        "num_train_epochs": "1",
        "per_device_train_batch_size": "2",
        "learning_rate": "1e-3",
        "max_length": "256",
        "save_steps": "40",
        "cpu_threads": str(len(os.sched_getaffinity(0))),
        "retries": "0",
        # A day of the sample data has about 35 rows.
        "min_new_rows": "20",
        # A DAG that is switched on runs its last interval at once; the demo triggers its own run.
        "start_date": f"{datetime.now(UTC):%Y-%m-%d}",
    }
    return {
        "AIRFLOW_CONN_LABELLED_DATA": f"sqlite:///{LABELLED_DATABASE}",
        "AIRFLOW_CONN_PEFT_RETRAINING_DB": f"sqlite:///{home / 'peft_retraining.db'}",
        **{f"AIRFLOW__PEFT_RETRAINING__{name.upper()}": value for name, value in settings.items()},
    }
