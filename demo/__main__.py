"""``make demo``: the nightly job end to end, on the sample data, in a real Airflow.

It loads the sample database, starts Airflow, triggers the DAG over REST as a user would, shows its progress, and ends
with what came out of it: the numbers, and two questions that neither model has seen, answered by both.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
from sqlalchemy import create_engine

from demo import settings
from demo.airflow_rest import AirflowRestError, RunNotFinishedError
from demo.local_airflow import LocalAirflow, LocalAirflowError, is_home_in_use
from demo.progress_line import ProgressLine
from demo.sample_data.load import load_sample_database
from demo.summary import AnsweredQuestion, summary
from peft_retraining.errors import RetrainingError
from peft_retraining.run_store.records import TrainingRun
from peft_retraining.run_store.store import RunStore
from training_contract.adapter_manifest import LATEST_NAME

RUN_LIMIT_SECONDS = 40 * 60
QUESTION_COUNT = 2
ADAPTERS_DIRECTORY = settings.AIRFLOW_HOME / "peft_retraining" / "adapters"


class DemoFailed(Exception):
    """The demo did not reach its end."""

    def __init__(self, cause: str, remedy: str) -> None:
        self.cause = cause
        self.remedy = remedy
        super().__init__(cause)


def main() -> int:
    """Run the demo; return the exit code."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--runner", default="process", choices=["process", "docker"])
    parser.add_argument("--rows", type=int, default=256, help="labelled rows to use, the newest ones (default: 256)")
    parser.add_argument(
        "--shuffle-answers",
        action="store_true",
        help="the control experiment: every question gets another one's answer, so that there is little to learn",
    )
    arguments = parser.parse_args()
    began = time.monotonic()
    try:
        prepare_directory(shuffle=arguments.shuffle_answers)
        run = run_nightly_job(arguments.runner, arguments.rows)
        questions = ask_published_adapter(run)
    except DemoFailed as failure:
        print(f"\nThe demo failed.\nCause:  {failure.cause}\nRemedy: {failure.remedy}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"\nThe demo failed.\nCause:  {error}\nRemedy: Free space, or `make clean demo`.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130
    print(
        summary(
            run,
            questions,
            adapter=relative(ADAPTERS_DIRECTORY / settings.ADAPTER_NAME / LATEST_NAME),
            seconds=time.monotonic() - began,
        )
    )
    return 0


def run_nightly_job(runner: str, row_count: int) -> TrainingRun:
    """Run the DAG on the sample data in an Airflow of its own.

    Args:
        runner: The setting ``runner``.
        row_count: The setting ``max_train_rows``.

    Returns:
        The record of the run, which succeeded.

    Raises:
        DemoFailed: With cause and remedy.
    """
    environment = settings.demo_environment(settings.AIRFLOW_HOME, runner=runner)
    airflow = LocalAirflow(
        settings.AIRFLOW_HOME,
        dags_folder=settings.REPOSITORY / "dags",
        plugins_folder=settings.REPOSITORY / "plugins",
        environment=environment,
        wait_for_dags=[settings.DAG_ID],
    )
    print("Starting Airflow: scheduler, api-server, dag-processor, triggerer (about a minute)", flush=True)
    try:
        with airflow:
            print(f"Airflow is up at {airflow.url} (user {airflow.username}, password {airflow.password})")
            airflow.rest.unpause(settings.DAG_ID)
            conf = {"max_train_rows": row_count, "min_new_rows": min(50, row_count)}
            run_id = airflow.rest.trigger(settings.DAG_ID, conf=conf)
            print(f"Triggered {settings.DAG_ID} on the newest {row_count} usable rows", flush=True)
            return follow(airflow, run_id, environment["AIRFLOW__PEFT_RETRAINING__RUNNER"])
    except RetrainingError as error:
        raise DemoFailed(str(error), error.remedy) from error
    except (LocalAirflowError, AirflowRestError, RunNotFinishedError) as error:
        logs = relative(settings.AIRFLOW_HOME / "logs")
        raise DemoFailed(str(error), f"Look at Airflow's own logs in {logs}; then run `make demo` again.") from error


def prepare_directory(*, shuffle: bool) -> None:
    """Start from nothing: rows that an earlier demo has published would not be new.

    Args:
        shuffle: Whether the answers are shuffled among the questions.
    """
    if is_home_in_use(settings.AIRFLOW_HOME):
        raise DemoFailed(
            f"an Airflow runs in {relative(settings.AIRFLOW_HOME)}, and the demo begins by deleting it",
            "Stop `make up` with Ctrl-C, then run `make demo` again.",
        )
    if settings.DEMO_DIRECTORY.exists():
        shutil.rmtree(settings.DEMO_DIRECTORY)
    settings.DEMO_DIRECTORY.mkdir()
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    row_count = load_sample_database(settings.LABELLED_DATABASE, end=today)
    if shuffle:
        shuffle_answers(settings.LABELLED_DATABASE)
    print(f"Loaded {row_count} sample conversations into {relative(settings.LABELLED_DATABASE)}", flush=True)


def shuffle_answers(database: Path) -> None:
    """Give every question the answers of another one; the same way each time."""
    with closing(sqlite3.connect(database)) as connection, connection:
        ids = [row_id for (row_id,) in connection.execute("SELECT id FROM ask_ai_queries ORDER BY id")]
        donors = random.Random(0).sample(ids, len(ids))
        # Copied inside the database: some answers are not UTF-8, on purpose, and Python would not read them.
        connection.execute("CREATE TEMP TABLE given (id INTEGER PRIMARY KEY, suggestions)")
        connection.executemany(
            "INSERT INTO given SELECT ?, suggestions FROM ask_ai_queries WHERE id = ?", zip(ids, donors, strict=True)
        )
        connection.execute(
            "UPDATE ask_ai_queries SET suggestions = (SELECT suggestions FROM given WHERE given.id = ask_ai_queries.id)"
        )


def follow(airflow: LocalAirflow, run_id: str, runner: str) -> TrainingRun:
    """Show a run's progress until it ends; return its record.

    Raises:
        DemoFailed: The run did not succeed.
    """
    # The run store is where a user would look too; it has phase, per cent and remaining time.
    engine = create_engine(f"sqlite:///{settings.AIRFLOW_HOME / 'peft_retraining.db'}")
    try:
        store = RunStore.open(engine)
        line = ProgressLine(sys.stdout)

        def look() -> None:
            line.show(store.run_of(settings.DAG_ID, run_id))
            for name, exit_code in airflow.ended_components().items():
                raise LocalAirflowError(f"the {name} ended with exit code {exit_code}; see {airflow.log_file(name)}")

        state = airflow.rest.wait_for_run(
            settings.DAG_ID,
            run_id,
            timeout_seconds=RUN_LIMIT_SECONDS,
            on_poll=lambda _: look(),
        )
        line.close()
        run = store.run_of(settings.DAG_ID, run_id)
    finally:
        engine.dispose()
    if run is not None and state == "success" and run.facts.adapter_path:
        return run
    if run is not None and run.failure is not None:
        where = f" in the task {run.failed_task_id}" if run.failed_task_id else ""
        raise DemoFailed(f"[{run.failure.failure_code}]{where} {run.failure.failure_reason}", run.failure.remedy)
    raise DemoFailed(
        f"the run ended as {state!r}, and its record says nothing ({runner} runner)", "See `make runs` and `make up`."
    )


def ask_published_adapter(run: TrainingRun) -> list[AnsweredQuestion]:
    """Have held-out questions answered by base and adapter, loaded from the published files as a server would.

    Raises:
        DemoFailed: The published adapter cannot be loaded.
    """
    attempts = run.attempts or ()
    directory = next(attempt.facts.run_directory for attempt in attempts if attempt.facts.run_directory)
    rows = pq.read_table(
        Path(directory) / "snapshot" / "rows.parquet", filters=[("split", "==", "heldout")]
    ).to_pylist()
    asked = rows[:QUESTION_COUNT]
    request = {
        "adapters_directory": str(ADAPTERS_DIRECTORY),
        "adapter_name": settings.ADAPTER_NAME,
        "prompts": [row["prompt"] for row in asked],
    }
    print("Loading the published adapter and asking it", flush=True)
    completed = subprocess.run(
        [settings.TRAINER_PYTHON, "-m", "demo.answer_questions"],
        cwd=settings.REPOSITORY,
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
    )
    if completed.returncode != 0:
        last_line = (completed.stderr.strip().splitlines() or ["nothing"])[-1]
        raise DemoFailed(f"the published adapter cannot be loaded: {last_line}", "Run `make clean demo`.")
    answers = json.loads(completed.stdout)["answers"]
    return [
        AnsweredQuestion(
            prompt=row["prompt"],
            expected=row["completion"],
            base_answer=answer["base"],
            adapter_answer=answer["adapter"],
        )
        for row, answer in zip(asked, answers, strict=True)
    ]


def relative(path: Path) -> str:
    """Return a path as a user in the repository would type it."""
    return str(path.relative_to(settings.REPOSITORY))


if __name__ == "__main__":
    sys.exit(main())
