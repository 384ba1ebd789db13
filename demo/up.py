"""``make up``: the demo's Airflow, kept running with its UI until it is told to stop.

It goes on with what the last demo left: its runs, its adapters, its records. Where there was none, it starts with the
sample data.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Never

from demo import settings
from demo.local_airflow import LocalAirflow, LocalAirflowError
from demo.sample_data.load import load_sample_database

_WATCH_SECONDS = 1.0


def main() -> int:
    """Run Airflow until Ctrl-C or SIGTERM; return the exit code."""
    parser = argparse.ArgumentParser(prog="make up", description=__doc__)
    parser.add_argument("--runner", default="process", choices=["process", "docker"])
    parser.add_argument("--port", type=int, default=int(os.environ.get("PORT", "8080")))
    arguments = parser.parse_args()
    if not settings.LABELLED_DATABASE.exists():
        settings.LABELLED_DATABASE.parent.mkdir(parents=True, exist_ok=True)
        load_sample_database(settings.LABELLED_DATABASE, end=datetime.now(UTC))
    airflow = LocalAirflow(
        settings.AIRFLOW_HOME,
        dags_folder=settings.REPOSITORY / "dags",
        plugins_folder=settings.REPOSITORY / "plugins",
        environment=settings.demo_environment(settings.AIRFLOW_HOME, runner=arguments.runner),
        port=arguments.port,
        wait_for_dags=[settings.DAG_ID],
    )
    return keep_running(airflow)


def keep_running(airflow: LocalAirflow) -> int:
    """Start Airflow and keep it until this process is told to stop, or a component ends.

    Returns:
        0 when it was told to stop, 1 when Airflow could not be kept running.
    """
    try:
        with _sigterm_as_ctrl_c():
            print("Starting Airflow (up to a minute)", flush=True)
            with airflow:
                print(f"Airflow is up: {airflow.url}  user {airflow.username}  password {airflow.password}")
                print("Ctrl-C stops it.", flush=True)
                return _watch(airflow)
    except KeyboardInterrupt:
        print("\nStopped.", flush=True)
        return 0
    except LocalAirflowError as error:
        print(f"\nCannot run Airflow: {error}", file=sys.stderr, flush=True)
        return 1


def _watch(airflow: LocalAirflow) -> int:
    while not (ended := airflow.ended_components()):
        time.sleep(_WATCH_SECONDS)
    for name, exit_code in ended.items():
        print(f"The {name} has ended with exit code {exit_code}; see {airflow.log_file(name)}", file=sys.stderr)
    return 1


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    def interrupt(*_: object) -> Never:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


if __name__ == "__main__":
    sys.exit(main())
