"""The DAG as Airflow parses it."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from airflow.sdk import DAG, AssetAlias, CronDataIntervalTimetable

from peft_retraining.dag_wiring import build_retraining_dag
from peft_retraining.settings import Settings, param_names

REPOSITORY = Path(__file__).resolve().parents[2]
TASKS = ["wait_for_labelled_data", "snapshot_training_data", "preflight", "train_adapter", "publish_adapter"]


@pytest.fixture
def dag() -> DAG:
    return build_retraining_dag(Settings(pool="gpu", retries=4, peft_type="LORA"))


def test_the_tasks_follow_each_other(dag: DAG) -> None:
    assert [task.task_id for task in dag.topological_sort()] == TASKS
    for task_id, next_id in pairwise(TASKS):
        assert dag.get_task(task_id).downstream_task_ids == {next_id}


def test_a_run_covers_the_interval_before_it(dag: DAG) -> None:
    assert isinstance(dag.timetable, CronDataIntervalTimetable)
    assert dag.max_active_runs == 1
    assert dag.catchup is False


def test_only_training_takes_a_slot_of_the_pool(dag: DAG) -> None:
    assert {task.task_id: task.pool for task in dag.tasks} == {
        **dict.fromkeys(TASKS, "default_pool"),
        "train_adapter": "gpu",
    }


def test_every_task_reports_its_failure_and_retries_as_set(dag: DAG) -> None:
    for task in dag.tasks:
        assert task.retries == 4
        assert task.on_failure_callback
        assert task.on_retry_callback


def test_the_trigger_form_has_the_settings_of_a_run_with_their_bounds(dag: DAG) -> None:
    assert set(dag.params) == set(param_names())
    assert dag.params.get_param("min_new_rows").schema["minimum"] == 1
    assert dag.params.get_param("peft_type").schema["enum"] == ["LORA", "PROMPT_TUNING"]


def test_publishing_can_wake_serving_dags(dag: DAG) -> None:
    assert dag.get_task("publish_adapter").outlets == [AssetAlias("peft-adapter/assistant")]


def test_a_second_dag_is_another_adapter() -> None:
    dags = [build_retraining_dag(Settings(dag_id=f"nightly_{name}", adapter_name=name)) for name in ("one", "two")]

    assert [dag.get_task("publish_adapter").outlets[0].name for dag in dags] == ["peft-adapter/one", "peft-adapter/two"]


def test_the_dag_file_parses_without_importing_anything_heavy() -> None:
    program = (
        "import sys, runpy\n"
        f"runpy.run_path({str(REPOSITORY / 'dags' / 'nightly_peft_retraining.py')!r})\n"
        "heavy = {'torch', 'transformers', 'peft', 'datasets', 'pyarrow', 'pandas', 'numpy', 'fastapi'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )

    finished = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(REPOSITORY / "plugins"), "PATH": "/usr/bin", "AIRFLOW_HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert finished.returncode == 0, finished.stderr
