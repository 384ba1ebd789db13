"""The home keeps its secrets to its owner, and nothing of the caller's Airflow gets into it."""

from __future__ import annotations

import json
import stat
from pathlib import Path

from demo.airflow_home import airflow_environment, prepare_home


def environment_of(home: Path, *, inherited: dict[str, str], extra: dict[str, str] | None = None) -> dict[str, str]:
    return airflow_environment(
        home,
        dags_folder=home / "dags",
        plugins_folder=None,
        port=8080,
        execution_port=8081,
        home_secrets=prepare_home(home),
        extra=extra,
        inherited=inherited,
    )


def test_a_home_keeps_its_secrets(tmp_path: Path) -> None:
    assert prepare_home(tmp_path / "home") == prepare_home(tmp_path / "home")
    assert prepare_home(tmp_path / "home") != prepare_home(tmp_path / "other")


def test_only_the_owner_may_read_secrets_and_passwords(tmp_path: Path) -> None:
    home_secrets = prepare_home(tmp_path)

    assert json.loads((tmp_path / "passwords.json").read_text()) == {"admin": home_secrets.admin_password}
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("passwords.json", "secrets.json")}
    assert modes == {0o600}


def test_the_callers_airflow_does_not_get_in(tmp_path: Path) -> None:
    inherited = {
        "AIRFLOW_HOME": "/elsewhere",
        "AIRFLOW__CORE__PARALLELISM": "99",
        "AIRFLOW_CONN_LABELLED_DATA": "postgres://production/",
        "PYTHONPATH": "/elsewhere",
        "LANG": "C.UTF-8",
        "SSL_CERT_FILE": "/ca.pem",
    }

    environment = environment_of(tmp_path, inherited=inherited)

    assert environment["AIRFLOW_HOME"] == str(tmp_path)
    assert environment["AIRFLOW__CORE__PARALLELISM"] != "99"
    assert "AIRFLOW_CONN_LABELLED_DATA" not in environment
    assert "/elsewhere" not in environment.values()
    assert (environment["LANG"], environment["SSL_CERT_FILE"]) == ("C.UTF-8", "/ca.pem")


def test_a_proxy_is_passed_on_but_not_asked_for_the_loopback(tmp_path: Path) -> None:
    environment = environment_of(tmp_path, inherited={"https_proxy": "http://proxy:3128", "NO_PROXY": "intranet"})

    assert environment["https_proxy"] == "http://proxy:3128"
    assert environment["NO_PROXY"] == environment["no_proxy"] == "intranet,127.0.0.1,localhost"


def test_what_the_caller_sets_wins(tmp_path: Path) -> None:
    extra = {"AIRFLOW__CORE__PARALLELISM": "2", "AIRFLOW_CONN_LABELLED_DATA": "sqlite:///rows.db"}

    environment = environment_of(tmp_path, inherited={}, extra=extra)

    assert extra.items() <= environment.items()
