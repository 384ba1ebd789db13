"""The nightly job through a real scheduler: what people do with it, and what they then see."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from integration.conftest import DATA_ENDS_AT, RUN_LIMIT_SECONDS, NightlyJob
from peft_retraining.publishing.adapter_store import AdapterStore
from peft_retraining.run_store.records import TrainingRun
from peft_retraining.run_store.states import RunState
from training_contract.adapter_manifest import read_verified_manifest, resolve_latest

pytestmark = pytest.mark.integration

DAG = "nightly_peft_retraining"
SECOND = "nightly_second_adapter"
TASKS = ["wait_for_labelled_data", "snapshot_training_data", "preflight", "train_adapter", "publish_adapter"]


@pytest.fixture(scope="session")
def published(nightly_job: NightlyJob) -> tuple[str, TrainingRun]:
    """Run the job once as a user does by hand, without a date; the tests that need an earlier success share it."""
    run_id, state = nightly_job.run(DAG)
    record = nightly_job.record(DAG, run_id)
    assert state == "success", record.failure
    return run_id, record


def rows_of(nightly_job: NightlyJob, record: TrainingRun) -> list[dict[str, Any]]:
    assert record.attempts is not None
    directory = next(a.facts.run_directory for a in record.attempts if a.facts.run_directory)
    return list(pq.read_table(Path(directory) / "snapshot" / "rows.parquet").to_pylist())


def test_both_dags_are_there_and_nothing_failed_to_import(nightly_job: NightlyJob) -> None:
    rest = nightly_job.airflow.rest

    assert {dag["dag_id"] for dag in rest.dags()} >= {DAG, SECOND}
    assert rest.import_errors() == []
    assert rest.plugin_import_errors() == []
    assert [plugin["name"] for plugin in rest.plugins()].count("peft_retraining") == 1


def test_a_manual_run_without_a_date_publishes_an_adapter(
    nightly_job: NightlyJob, published: tuple[str, TrainingRun]
) -> None:
    run_id, record = published
    latest = resolve_latest(nightly_job.adapters_directory, "assistant")
    manifest = read_verified_manifest(latest)

    assert record.state is RunState.SUCCEEDED
    assert (manifest.dag_id, manifest.run_id) == (DAG, run_id)
    assert manifest.training_run_id == record.training_run_id
    assert record.facts.adapter_path == str(latest)
    assert record.facts.moved_latest is True


def test_the_record_of_a_success_has_the_numbers_and_every_task(published: tuple[str, TrainingRun]) -> None:
    _, record = published
    assert record.attempts is not None
    facts = record.facts

    assert (facts.train_row_count or 0) + (facts.heldout_row_count or 0) == 100
    assert (facts.base_heldout_loss, facts.adapter_heldout_loss) == (3.0, 1.0)
    assert facts.new_row_count and facts.new_row_count > 4000
    assert facts.triggered_by == "admin"
    assert record.progress_percentage == 100.0
    assert {attempt.key.task_id: attempt.state for attempt in record.attempts} == dict.fromkeys(
        TASKS, RunState.SUCCEEDED
    )


def test_xcom_tells_what_each_task_did(nightly_job: NightlyJob, published: tuple[str, TrainingRun]) -> None:
    run_id, record = published
    rest = nightly_job.airflow.rest
    values = {task: rest.xcom(DAG, run_id, task) for task in TASKS}

    assert values["wait_for_labelled_data"]["new_row_count"] == record.facts.new_row_count
    assert values["snapshot_training_data"]["digest"] == record.facts.data_digest
    assert values["preflight"]["cache_state"] == "complete"
    assert values["train_adapter"]["adapter_heldout_loss"] == 1.0
    assert values["publish_adapter"] == {
        "adapter_version": record.facts.adapter_version,
        "adapter_path": record.facts.adapter_path,
        "moved_latest": True,
    }


def test_the_trainers_output_is_in_the_task_log_with_its_streams_told_apart(
    nightly_job: NightlyJob, published: tuple[str, TrainingRun]
) -> None:
    log = nightly_job.airflow.rest.task_log(DAG, published[0], "train_adapter")

    assert "[stdout] a line on stdout" in log
    assert "[stderr] a line on stderr" in log


def test_a_manual_run_right_after_is_skipped_with_the_numbers(
    nightly_job: NightlyJob, published: tuple[str, TrainingRun]
) -> None:
    run_id, state = nightly_job.run(DAG)
    record = nightly_job.record(DAG, run_id)
    states = {task["task_id"]: task["state"] for task in nightly_job.airflow.rest.task_instances(DAG, run_id)}

    assert state == "success"
    assert set(states.values()) == {"skipped"}
    assert record.state is RunState.SKIPPED
    assert record.facts.new_row_count == 0
    assert record.failure is not None
    assert "0 new labelled rows since" in record.failure.failure_reason
    assert "5 are needed" in record.failure.failure_reason


def test_an_unknown_base_model_fails_in_preflight_and_the_record_says_why(
    nightly_job: NightlyJob, published: tuple[str, TrainingRun]
) -> None:
    before = AdapterStore(nightly_job.adapters_directory, "second").versions()
    run_id, state = nightly_job.run(SECOND, base_model_name_or_path="somebody/no-such-model")
    record = nightly_job.record(SECOND, run_id)
    report = nightly_job.airflow.rest.xcom(SECOND, run_id, "preflight", "training_failure")

    assert state == "failed"
    assert (record.state, record.failed_task_id) == (RunState.FAILED, "preflight")
    assert record.failure is not None
    assert record.failure.failure_code == "preflight_model_cache_absent"
    assert "somebody/no-such-model" in record.failure.failure_reason
    assert "peft-retraining cache prefetch" in record.failure.remedy
    assert report["failure_code"] == record.failure.failure_code
    assert AdapterStore(nightly_job.adapters_directory, "second").versions() == before


def test_a_failing_trainer_leaves_cause_and_both_streams_in_record_and_xcom(nightly_job: NightlyJob) -> None:
    run_id, state = nightly_job.run(SECOND, peft_settings={"behaviour": "fail"})
    record = nightly_job.record(SECOND, run_id)
    report = nightly_job.airflow.rest.xcom(SECOND, run_id, "train_adapter", "training_failure")

    assert state == "failed"
    assert record.failed_task_id == "train_adapter"
    assert record.failure is not None
    assert "planned failure" in record.failure.failure_reason
    assert report["exit_code"] == 79
    assert "a line on stdout" in report["stdout"]["head"]
    assert "RuntimeError: planned failure" in report["stderr"]["head"] + report["stderr"]["tail"]
    assert "planned failure" not in report["stdout"]["head"]


def test_an_exit_code_of_0_without_a_result_is_a_failure(nightly_job: NightlyJob) -> None:
    run_id, state = nightly_job.run(SECOND, peft_settings={"behaviour": "exit_0_without_result"})
    record = nightly_job.record(SECOND, run_id)

    assert state == "failed"
    assert record.failure is not None
    assert "result" in record.failure.failure_reason
    assert record.facts.adapter_version is None


def test_a_value_outside_the_trigger_forms_schema_never_starts_a_run(nightly_job: NightlyJob) -> None:
    with pytest.raises(Exception, match="400"):
        nightly_job.airflow.rest.trigger(DAG, conf={"min_new_rows": 0})


@pytest.fixture(scope="session")
def backfilled(nightly_job: NightlyJob, published: tuple[str, TrainingRun]) -> list[TrainingRun]:
    """Backfill three days, after a newer adapter was published."""
    run_ids = backfill(nightly_job, DAG, first=DATA_ENDS_AT - timedelta(days=10), day_count=3)
    return [nightly_job.record(DAG, run_id) for run_id in run_ids]


def backfill(nightly_job: NightlyJob, dag_id: str, *, first: datetime, day_count: int) -> list[str]:
    """Backfill days by Airflow's own command; return the runs' ids in the order of their days."""
    finished = nightly_job.airflow.run_cli(
        "backfill", "create", "--dag-id", dag_id,
        "--from-date", (first + timedelta(hours=2)).isoformat(),
        "--to-date", (first + timedelta(days=day_count - 1, hours=2)).isoformat(),
        "--max-active-runs", "1",
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    runs = [run for run in nightly_job.airflow.rest.dag_runs(dag_id) if run["run_type"] == "backfill"]
    assert len(runs) == day_count
    run_ids = [run["dag_run_id"] for run in sorted(runs, key=lambda run: run["logical_date"])]
    for run_id in run_ids:
        state = nightly_job.airflow.rest.wait_for_run(dag_id, run_id, timeout_seconds=RUN_LIMIT_SECONDS * day_count)
        assert state == "success", nightly_job.record(dag_id, run_id).failure
    return run_ids


def test_a_backfill_of_three_days_publishes_three_adapters(
    nightly_job: NightlyJob, backfilled: list[TrainingRun]
) -> None:
    versions = {record.facts.adapter_version for record in backfilled}
    ends = [record.facts.window_ends_at for record in backfilled]

    assert len(versions) == 3
    assert ends == [DATA_ENDS_AT - timedelta(days=day) + timedelta(hours=2) for day in (9, 8, 7)]
    for record in backfilled:
        assert record.facts.adapter_path is not None
        read_verified_manifest(Path(record.facts.adapter_path))


def test_each_day_trained_exactly_the_newest_usable_rows_before_its_own_end(
    nightly_job: NightlyJob, backfilled: list[TrainingRun]
) -> None:
    for record in backfilled:
        end = record.facts.window_ends_at
        assert end is not None
        rows = rows_of(nightly_job, record)
        trained = [int(row["source_id"]) for row in rows]
        candidates = nightly_job.labelled(
            "SELECT id FROM ask_ai_queries WHERE created_at < ? ORDER BY created_at DESC, id DESC LIMIT ?",
            end.strftime("%Y-%m-%d %H:%M:%S").encode().decode(),
            len(rows) + (record.facts.refused_row_count or 0),
        )
        newest = [int(str(row[0])) for row in candidates]

        assert len(trained) == 100
        assert all(datetime.fromisoformat(row["created_at"]) < end for row in rows)
        assert [row_id for row_id in newest if row_id in set(trained)] == trained
        assert len(set(newest) - set(trained)) == record.facts.refused_row_count


def test_each_day_counted_the_new_rows_of_its_own_interval(
    nightly_job: NightlyJob, backfilled: list[TrainingRun]
) -> None:
    for record in backfilled:
        end, since = record.facts.window_ends_at, record.facts.new_rows_since
        assert end is not None
        assert since == end - timedelta(days=1)
        [(count,)] = nightly_job.labelled(
            "SELECT count(*) FROM ask_ai_queries WHERE created_at >= ? AND created_at < ?"
            " AND original_query IS NOT NULL AND suggestions IS NOT NULL",
            f"{since:%Y-%m-%d %H:%M:%S}",
            f"{end:%Y-%m-%d %H:%M:%S}",
        )
        assert record.facts.new_row_count == count


def test_a_backfill_of_old_days_leaves_latest_alone_and_wakes_nobody(
    nightly_job: NightlyJob, published: tuple[str, TrainingRun], backfilled: list[TrainingRun]
) -> None:
    run_id, record = published
    events = nightly_job.airflow.rest.asset_events(source_dag_id=DAG)

    assert resolve_latest(nightly_job.adapters_directory, "assistant").name == record.facts.adapter_version
    assert [backfill.facts.moved_latest for backfill in backfilled] == [False, False, False]
    assert [event["source_run_id"] for event in events] == [run_id]
    assert events[0]["extra"]["adapter_version"] == record.facts.adapter_version


def test_days_in_their_order_move_latest_each_time(nightly_job: NightlyJob) -> None:
    run_ids = backfill(nightly_job, SECOND, first=DATA_ENDS_AT - timedelta(days=5), day_count=2)
    events = nightly_job.airflow.rest.asset_events(source_dag_id=SECOND)
    newest = nightly_job.record(SECOND, run_ids[-1])

    assert [event["source_run_id"] for event in events] == run_ids
    assert resolve_latest(nightly_job.adapters_directory, "second").name == newest.facts.adapter_version


def test_the_json_api_answers_who_may_read_and_nobody_else(
    nightly_job: NightlyJob, published: tuple[str, TrainingRun]
) -> None:
    import httpx

    base = f"{nightly_job.airflow.url}/peft-retraining/api/v1"
    anonymous = httpx.get(f"{base}/runs")
    listed = nightly_job.airflow.rest.request("GET", "/peft-retraining/api/v1/runs").json()
    shown = nightly_job.airflow.rest.request("GET", f"/peft-retraining/api/v1/dags/{DAG}/runs/{published[0]}").json()

    assert anonymous.status_code == 401
    assert published[0] in [run["run_id"] for run in listed["runs"]]
    assert shown["adapter_version"] == published[1].facts.adapter_version


def test_no_run_left_a_trainer_behind(nightly_job: NightlyJob, published: tuple[str, TrainingRun]) -> None:
    own = str(nightly_job.runs_directory)
    commands = [path.read_bytes().replace(b"\0", b" ").decode(errors="replace") for path in living_processes()]

    assert [command for command in commands if own in command] == []


def living_processes() -> Iterator[Path]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            path.read_bytes()
        except OSError:
            continue
        yield path
