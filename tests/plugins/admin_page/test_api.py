"""The JSON API without a server: who may read what, paging, and what is not understood."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from airflow.api_fastapi.core_api.security import get_user
from fastapi.testclient import TestClient
from sqlalchemy import create_engine

from peft_retraining.admin_page import app as application
from peft_retraining.identity import AttemptKey
from peft_retraining.run_store.records import AttemptFacts, OutputExcerpt, RunFacts
from peft_retraining.run_store.states import RunState
from peft_retraining.run_store.store import RunStore

NOON = datetime(2026, 11, 11, 12, tzinfo=UTC)


class AuthManager:
    """Airflow's, as far as the API uses it: it lets everybody read the DAG ``readable`` and no other."""

    def get_authorized_dag_ids(self, *, user: object, method: str) -> set[str]:
        assert method == "GET"
        return {"readable"}

    def is_authorized_dag(self, *, details: SimpleNamespace | None = None, **_: object) -> bool:
        return details is not None and details.id == "readable"


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    monkeypatch.setenv("AIRFLOW_CONN_PEFT_RETRAINING_DB", url)
    monkeypatch.setattr(application, "get_auth_manager", AuthManager)
    monkeypatch.setattr("airflow.api_fastapi.core_api.security.get_auth_manager", AuthManager)
    # Airflow asks its own database for the DAG's team; there is none here.
    monkeypatch.setattr("airflow.api_fastapi.core_api.security.DagModel.get_team_name", lambda *_: None)
    store = RunStore.open(create_engine(url))
    for number in range(6):
        at = NOON + timedelta(minutes=number)
        dag_id = "hidden" if number % 2 else "readable"
        store.record_run(dag_id, f"run/{number}+00:00", RunFacts(adapter_name="assistant"), observed_at=at)
    key = AttemptKey(dag_id="readable", run_id="run/0+00:00", task_id="train_adapter")
    output = OutputExcerpt(head="somebody's text", total_bytes=15)
    store.record_attempt(key, RunState.RUNNING, AttemptFacts(started_at=NOON, stdout=output, stderr=output))
    app = application.create_app()
    app.dependency_overrides[get_user] = lambda: SimpleNamespace(name="viewer")
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def test_only_runs_of_readable_dags_are_listed_newest_first(client: TestClient) -> None:
    answer = client.get("/api/v1/runs").json()

    assert [run["run_id"] for run in answer["runs"]] == ["run/4+00:00", "run/2+00:00", "run/0+00:00"]
    assert "next" not in answer


def test_pages_follow_each_other_without_gap_or_repeat(client: TestClient) -> None:
    seen: list[str] = []
    before: str | None = None
    while True:
        answer = client.get("/api/v1/runs", params={"limit": 1, **({"before": before} if before else {})}).json()
        seen += [run["run_id"] for run in answer["runs"]]
        if "next" not in answer:
            break
        before = answer["next"]

    assert seen == ["run/4+00:00", "run/2+00:00", "run/0+00:00"]


def test_a_run_is_shown_without_what_the_trainer_printed(client: TestClient) -> None:
    answer = client.get("/api/v1/dags/readable/runs/run/0+00:00")

    assert answer.status_code == 200
    assert answer.json()["attempts"][0]["task_id"] == "train_adapter"
    assert "somebody's text" not in answer.text


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/v1/dags/hidden/runs/run/1+00:00", 403),
        ("/api/v1/dags/readable/runs/nonsense", 404),
        ("/api/v1/dags/readable/runs/../../etc/passwd", 404),
        ("/api/v1/runs?limit=0", 422),
        ("/api/v1/runs?limit=101", 422),
        ("/api/v1/runs?state=nonsense", 422),
        ("/api/v1/runs?before=nonsense", 422),
        ("/api/v1/runs?before=2026-11-11~'; DROP TABLE training_runs; --", 422),
    ],
)
def test_what_is_not_allowed_not_there_or_not_understood_says_so(client: TestClient, path: str, status: int) -> None:
    assert client.get(path).status_code == status


def test_nobody_gets_anything_without_signing_in(client: TestClient) -> None:
    client.app.dependency_overrides.clear()  # type: ignore[attr-defined]

    assert client.get("/api/v1/runs").status_code == 401
    assert client.get("/api/v1/dags/readable/runs/run/0+00:00").status_code == 401


def test_there_is_no_route_but_the_two_that_ask_who_you_are(client: TestClient) -> None:
    assert {route.path for route in client.app.routes} == {  # type: ignore[attr-defined]
        "/api/v1/runs",
        "/api/v1/dags/{dag_id}/runs/{run_id:path}",
    }


def test_a_record_that_is_away_is_told_as_such(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_PEFT_RETRAINING_DB", "sqlite:////no/such/directory/runs.db")

    answer = client.get("/api/v1/runs")

    assert answer.status_code == 503
    assert answer.json()["failure_code"]


def test_nothing_can_be_written(client: TestClient) -> None:
    for path in ("/api/v1/runs", "/api/v1/dags/readable/runs/run/0+00:00"):
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            assert client.request(method, path).status_code == 405
