"""Airflow connections become engines; what cannot be used says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from peft_retraining.connections import labelled_data_engine, run_store_engine
from peft_retraining.errors import InfrastructureError, PlatformError


def connect_arguments(engine: sa.Engine) -> dict[str, Any]:
    """Return what the driver would be given, without connecting."""
    given: dict[str, Any] = {}

    @sa.event.listens_for(engine, "do_connect")
    def note(_dialect: Any, _record: Any, _arguments: Any, parameters: dict[str, Any]) -> None:
        given.update(parameters)
        raise ConnectionError("not really")

    with pytest.raises(ConnectionError):
        engine.connect()
    return given


def test_what_a_postgresql_connection_asks_of_tls_reaches_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_LABELLED_DATA", "postgresql://reader@db.example/home?sslmode=verify-full")

    given = connect_arguments(labelled_data_engine("labelled_data"))

    assert given["sslmode"] == "verify-full"
    assert given["connect_timeout"] > 0


def test_a_connection_that_is_not_found_may_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_NEVER_DEFINED", raising=False)

    with pytest.raises(InfrastructureError, match="'never_defined'") as caught:
        labelled_data_engine("never_defined")

    assert caught.value.failure_code == "connection_not_found"


@pytest.mark.parametrize("uri", ["nosuchkind://host/database", "http://host"])
def test_a_connection_of_no_database_says_so(monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_LABELLED_DATA", uri)

    with pytest.raises(PlatformError) as caught:
        labelled_data_engine("labelled_data")

    assert caught.value.failure_code == "connection_unusable"


def test_the_record_of_one_machine_needs_no_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))

    engine = run_store_engine("peft_retraining_db", sleep=lambda _: None)

    assert engine.url.database == str(tmp_path / "peft_retraining.db")


def test_a_connection_that_airflow_finds_at_the_second_look_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))

    def airflow_answers_again(_: float) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_PEFT_RETRAINING_DB", f"sqlite:///{tmp_path / 'configured.db'}")

    engine = run_store_engine("peft_retraining_db", sleep=airflow_answers_again)

    assert engine.url.database == str(tmp_path / "configured.db")


def test_a_local_file_that_is_in_use_is_found_without_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    (tmp_path / "peft_retraining.db").touch()

    def never(_: float) -> None:
        raise AssertionError("waited")

    assert run_store_engine("peft_retraining_db", sleep=never).url.database == str(tmp_path / "peft_retraining.db")


def test_the_record_of_several_machines_is_never_a_local_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")

    with pytest.raises(InfrastructureError, match="record of runs"):
        run_store_engine("peft_retraining_db", sleep=lambda _: None)


def test_a_connection_that_is_named_is_never_replaced_by_a_local_file() -> None:
    with pytest.raises(InfrastructureError, match="'our_record'"):
        run_store_engine("our_record", sleep=lambda _: None)
