"""The command line."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from documents_of_the_contract import EXAMPLES
from peft_retraining.cli import main
from peft_retraining.errors import FailureClass
from peft_retraining.identity import AttemptKey
from peft_retraining.run_store.records import AttemptFacts, Failure, RunFacts
from peft_retraining.run_store.states import RunState
from peft_retraining.run_store.store import RunStore
from training_contract.adapter_manifest import AdapterManifest
from training_contract.documents import write_document

MANIFEST = EXAMPLES["manifest"]
assert isinstance(MANIFEST, AdapterManifest)
REPOSITORY = Path(__file__).resolve().parents[2]
KEY = AttemptKey(dag_id="nightly_peft_retraining", run_id="manual__2026", task_id="preflight")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunStore:
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    monkeypatch.setenv("AIRFLOW_CONN_PEFT_RETRAINING_DB", url)
    return RunStore.open(create_engine(url))


@pytest.fixture
def failed_run(store: RunStore) -> str:
    failure = Failure(
        failure_code="model_not_cached",
        failure_reason="the base model is not in the cache",
        failure_class=FailureClass.USER,
        retryable=False,
        remedy="peft-retraining cache prefetch",
    )
    store.record_run(KEY.dag_id, KEY.run_id, RunFacts(adapter_name="assistant", train_row_count=90))
    store.record_attempt(KEY, RunState.FAILED, AttemptFacts(started_at=datetime.now(UTC), failure=failure))
    return KEY.training_run_id


def test_runs_list_shows_the_cause_in_one_line(failed_run: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "list"]) == 0

    header, line = capsys.readouterr().out.splitlines()
    assert header.startswith("RUN")
    assert failed_run in line
    assert "model_not_cached: the base model is not in the cache" in line


def test_runs_list_is_json_on_request(failed_run: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "list", "--json", "--state", "failed"]) == 0

    [run] = json.loads(capsys.readouterr().out)
    assert (run["training_run_id"], run["failure_code"]) == (failed_run, "model_not_cached")


def test_runs_list_filters(failed_run: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "list", "--json", "--state", "succeeded"]) == 0

    assert json.loads(capsys.readouterr().out) == []


@pytest.mark.parametrize("name", ["own id", "airflow's run_id"])
def test_runs_show_takes_our_id_or_airflows(failed_run: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "show", failed_run if name == "own id" else KEY.run_id]) == 0

    shown = capsys.readouterr().out
    assert "remedy: peft-retraining cache prefetch" in shown
    assert "task preflight, try 1: failed" in shown


def test_runs_show_of_an_unknown_run_says_where_to_look(store: RunStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "show", "nonsense"]) == 1

    assert "peft-retraining runs list" in capsys.readouterr().err


def test_adapters_list_says_which_version_is_latest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AIRFLOW__PEFT_RETRAINING__ADAPTERS_DIRECTORY", str(tmp_path))
    assert main(["adapters", "list"]) == 0
    assert "Nothing is published" in capsys.readouterr().out

    for day in (10, 11):
        manifest = replace(
            MANIFEST, version=f"202611{day}T020000Z-9f86d081", window_ends_at=f"2026-11-{day}T02:00:00+00:00"
        )
        directory = tmp_path / "assistant" / "versions" / manifest.version
        directory.mkdir(parents=True)
        write_document(directory / "manifest.json", manifest)
    (tmp_path / "assistant" / "latest").symlink_to("versions/20261111T020000Z-9f86d081")

    assert main(["adapters", "list"]) == 0
    newest, older = capsys.readouterr().out.splitlines()
    assert newest.startswith("20261111T020000Z-9f86d081  latest")
    assert "latest" not in older
    assert main(["adapters", "list", "--json"]) == 0
    assert [version["is_latest"] for version in json.loads(capsys.readouterr().out)] == [True, False]


def test_db_upgrade_makes_the_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_PEFT_RETRAINING_DB", f"sqlite:///{tmp_path / 'new.db'}")

    assert main(["db", "upgrade"]) == 0

    assert (tmp_path / "new.db").exists()
    assert "up to date" in capsys.readouterr().out


def test_without_a_connection_the_record_is_a_file_in_the_airflow_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))

    assert main(["db", "upgrade"]) == 0

    assert (tmp_path / "peft_retraining.db").exists()


def test_cache_prefetch_asks_the_trainers_environment(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    paths = ":".join(str(REPOSITORY / folder) for folder in ("tests", "trainer_image", "plugins"))
    command = shlex.join(["env", f"PYTHONPATH={paths}", sys.executable, "-m", "torch_free_trainer"])
    monkeypatch.setenv("AIRFLOW__PEFT_RETRAINING__RUNNER", "process")
    monkeypatch.setenv("AIRFLOW__PEFT_RETRAINING__TRAINER_COMMAND", command)

    assert main(["cache", "prefetch", "--base-model", "google/flan-t5-small"]) == 0

    assert json.loads(capfd.readouterr().out) == {"cache_state": "complete"}


@pytest.mark.parametrize(
    ("given", "fetched"),
    [
        pytest.param([], ["google/flan-t5-small", "v1"], id="nothing"),
        pytest.param(["--base-model", "google/flan-t5-small"], ["google/flan-t5-small", "v1"], id="configured model"),
        pytest.param(["--base-model", "other/model"], ["other/model", None], id="another model"),
        pytest.param(["--revision", "v2"], ["google/flan-t5-small", "v2"], id="another revision"),
        pytest.param(["--base-model", "other/model", "--revision", "v2"], ["other/model", "v2"], id="both"),
    ],
)
def test_cache_prefetch_keeps_the_configured_revision_for_the_configured_model(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], given: list[str], fetched: list[str | None]
) -> None:
    trainer = (
        "import argparse, json; parser = argparse.ArgumentParser(); parser.add_argument('command'); "
        "[parser.add_argument(name) for name in ('--base-model', '--revision', '--cache-dir')]; "
        "given = parser.parse_args(); print(json.dumps([given.base_model, given.revision])); raise SystemExit(33)"
    )
    monkeypatch.setenv("AIRFLOW__PEFT_RETRAINING__RUNNER", "process")
    monkeypatch.setenv("AIRFLOW__PEFT_RETRAINING__TRAINER_COMMAND", shlex.join([sys.executable, "-c", trainer]))
    monkeypatch.setenv("AIRFLOW__PEFT_RETRAINING__BASE_MODEL_NAME_OR_PATH", "google/flan-t5-small")
    monkeypatch.setenv("AIRFLOW__PEFT_RETRAINING__BASE_MODEL_REVISION", "v1")

    assert main(["cache", "prefetch", *given]) == 33

    assert json.loads(capfd.readouterr().out) == fetched


def test_a_failure_has_cause_and_remedy_on_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AIRFLOW__PEFT_RETRAINING__RUNNER", "process")

    assert main(["cache", "prefetch"]) == 1

    error = capsys.readouterr().err
    assert "[trainer_command_not_set]" in error
    assert "Remedy:" in error


@pytest.mark.parametrize(
    "arguments", [[], ["runs"], ["runs", "list", "--limit", "0"], ["runs", "list", "--state", "x"]]
)
def test_wrong_usage_ends_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)

    assert caught.value.code == 2
