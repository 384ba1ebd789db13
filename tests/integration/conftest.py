"""One real Airflow for all integration tests: mounted DAGs and plugins, the torch-free trainer, a labelled database."""

from __future__ import annotations

import shlex
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from demo.local_airflow import LocalAirflow
from demo.sample_data.load import load_sample_database
from peft_retraining.run_store.records import TrainingRun
from peft_retraining.run_store.store import RunStore
from postgresql_server import postgresql_database_url, postgresql_url

__all__ = ["postgresql_database_url", "postgresql_url"]

REPOSITORY = Path(__file__).resolve().parents[2]
TRAINER_PYTHON = REPOSITORY / ".venv-trainer" / "bin" / "python"
DATA_ENDS_AT = datetime(2026, 11, 20, tzinfo=UTC)
RUN_LIMIT_SECONDS = 180


@dataclass(frozen=True)
class NightlyJob:
    """A running Airflow with the product in it."""

    airflow: LocalAirflow
    labelled_database: Path
    adapters_directory: Path
    runs_directory: Path
    run_store_url: str

    def run(self, dag_id: str, **conf: object) -> tuple[str, str]:
        """Trigger a manual run without a date as the UI does; return its run_id and end state."""
        run_id = self.airflow.rest.trigger(dag_id, conf=conf)
        return run_id, self.airflow.rest.wait_for_run(dag_id, run_id, timeout_seconds=RUN_LIMIT_SECONDS)

    def record(self, dag_id: str, run_id: str) -> TrainingRun:
        """Return what is recorded of a run."""
        engine = create_engine(self.run_store_url)
        try:
            run = RunStore.open(engine).run_of(dag_id, run_id)
        finally:
            engine.dispose()
        assert run is not None, f"nothing is recorded of {run_id}"
        return run

    def database(self, conn_id: str) -> Path:
        """Return where a test's own labelled database goes; nobody but the test creates it."""
        return self.labelled_database.with_name(f"{conn_id}.db")

    def labelled(self, query: str, *values: object) -> list[tuple[object, ...]]:
        """Ask the labelled database."""
        connection = sqlite3.connect(self.labelled_database)
        connection.text_factory = bytes
        try:
            return connection.execute(query, values).fetchall()
        finally:
            connection.close()


def trainer_command(*, module: str, python: str) -> str:
    """Return a command line that runs a trainer out of this repository."""
    path = ":".join(str(REPOSITORY / folder) for folder in ("tests", "trainer_image", "plugins"))
    return shlex.join(["env", f"PYTHONPATH={path}", python, "-m", module])


def unusable_rows(path: Path) -> Path:
    """Make a labelled database without one row to learn from: malformed JSON, NUL, bytes that are not UTF-8."""
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE ask_ai_queries (original_query TEXT, suggestions TEXT, created_at TEXT)")
    for prompt, suggestions in (("'q'", "'{\"a\":'"), ("char(0)", "'[]'"), ("CAST(x'ff' AS TEXT)", "'[]'")) * 3:
        connection.execute(f"INSERT INTO ask_ai_queries VALUES ({prompt}, {suggestions}, '2026-11-01 00:00:00')")
    connection.commit()
    connection.close()
    return path


@pytest.fixture(scope="session")
def nightly_job(tmp_path_factory: pytest.TempPathFactory, postgresql_url: str) -> Iterator[NightlyJob]:
    """Start Airflow once; stop it at the end."""
    home = tmp_path_factory.mktemp("airflow")
    dags = home / "dags"
    dags.mkdir()
    for file in (REPOSITORY / "dags").glob("*.py"):
        (dags / file.name).write_text(file.read_text())
    for file in (REPOSITORY / "tests" / "integration" / "dags").glob("*.py"):
        (dags / file.name).write_text(file.read_text())
    database = home / "labelled.db"
    load_sample_database(database, end=DATA_ENDS_AT)
    run_store_url = f"sqlite:///{home / 'runs.db'}"
    tiny_model = home / "tiny-model"
    builder = REPOSITORY / "tests" / "trainer_image" / "tiny_models.py"
    subprocess.run([TRAINER_PYTHON, builder, tiny_model], check=True, capture_output=True)
    environment = {
        "TEST_TINY_MODEL": str(tiny_model),
        "TEST_REAL_TRAINER_COMMAND": trainer_command(module="peft_trainer", python=str(TRAINER_PYTHON)),
        # Airflow's own database: commands such as `backfill create` write beside the scheduler, and with SQLite
        # Airflow fails them now and then ("database is locked"). The product's own databases stay SQLite here.
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": postgresql_url,
        "AIRFLOW_CONN_LABELLED_DATA": f"sqlite:///{database}",
        "AIRFLOW_CONN_UNREACHABLE_DATABASE": "postgresql://reader:s3cret-password@127.0.0.1:1/labelled",
        "AIRFLOW_CONN_MISSING_DATABASE": f"sqlite:///{home / 'missing.db'}",
        "AIRFLOW_CONN_UNUSABLE_ROWS": f"sqlite:///{unusable_rows(home / 'unusable.db')}",
        **{
            f"AIRFLOW_CONN_{conn_id.upper()}": f"sqlite:///{home / conn_id}.db"
            for conn_id in ("late_rows", "too_few_rows", "cleared")
        },
        "AIRFLOW_CONN_PEFT_RETRAINING_DB": run_store_url,
        "AIRFLOW__PEFT_RETRAINING__RUNNER": "process",
        "AIRFLOW__PEFT_RETRAINING__TRAINER_COMMAND": trainer_command(
            module="torch_free_trainer", python=sys.executable
        ),
        "AIRFLOW__PEFT_RETRAINING__MAX_TRAIN_ROWS": "100",
        "AIRFLOW__PEFT_RETRAINING__MIN_NEW_ROWS": "5",
        "AIRFLOW__PEFT_RETRAINING__RETRIES": "0",
        # Not before tomorrow: a DAG that is switched on runs its last interval at once, beside what the tests start.
        "AIRFLOW__PEFT_RETRAINING__START_DATE": f"{datetime.now(UTC) + timedelta(days=1):%Y-%m-%d}",
    }
    airflow = LocalAirflow(
        home / "airflow",
        dags_folder=dags,
        plugins_folder=REPOSITORY / "plugins",
        environment=environment,
        wait_for_dags=[
            *("nightly_peft_retraining", "nightly_second_adapter", "docker_runner", "nightly_real_trainer"),
            "late_rows",
        ],
    )
    with airflow:
        airflow.rest.unpause("nightly_peft_retraining")
        airflow.rest.unpause("nightly_second_adapter")
        base = home / "airflow" / "peft_retraining"
        yield NightlyJob(
            airflow=airflow,
            labelled_database=database,
            adapters_directory=base / "adapters",
            runs_directory=base / "runs",
            run_store_url=run_store_url,
        )
