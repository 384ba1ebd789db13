"""What a local Airflow keeps in its home directory, and the environment that says so to its processes.

In: a home directory and what the caller wants to set. Out: environment variables, the only configuration there is.
Next: ``local_airflow.py`` starts the components with them.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

LOOPBACK = "127.0.0.1"
ADMIN = "admin"
_HEARTBEAT_SECONDS = 2
_INHERITED = frozenset(
    name for upper in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY") for name in (upper, upper.lower())
) | {
    *("HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class HomeSecrets:
    """What one home's Airflow signs, encrypts and lets people in with; made once, then kept.

    Attributes:
        admin_password: For the user ``admin``.
        fernet_key: Encrypts connections in Airflow's database.
        jwt_secret: Signs the tokens of people and of tasks.
        api_secret_key: Signs the API server's sessions.
    """

    admin_password: str
    fernet_key: str
    jwt_secret: str
    api_secret_key: str


def prepare_home(home: Path) -> HomeSecrets:
    """Create what is missing in ``home`` and return its secrets; nothing that is there is replaced.

    Args:
        home: Absolute path of a directory; it and its parents are created.
    """
    (home / "logs").mkdir(parents=True, exist_ok=True)
    secrets_file = home / "secrets.json"
    if not secrets_file.exists():
        fresh = HomeSecrets(
            admin_password=secrets.token_urlsafe(12),
            fernet_key=base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            jwt_secret=secrets.token_urlsafe(64),
            api_secret_key=secrets.token_urlsafe(32),
        )
        _write_private(secrets_file, json.dumps(asdict(fresh)))
    kept = HomeSecrets(**json.loads(secrets_file.read_text()))
    _write_private(_passwords_file(home), json.dumps({ADMIN: kept.admin_password}))
    # Airflow writes all its defaults into this file when there is none: stale after an upgrade, and slow to read.
    (home / "airflow.cfg").write_text("# Left empty on purpose: everything is set by environment variables.\n")
    return kept


def airflow_environment(
    home: Path,
    *,
    dags_folder: Path,
    plugins_folder: Path | None,
    port: int,
    execution_port: int,
    home_secrets: HomeSecrets,
    python_path: Sequence[Path] = (),
    extra: Mapping[str, str] | None = None,
    inherited: Mapping[str, str] = os.environ,
) -> dict[str, str]:
    """Return the whole environment of an Airflow that keeps to ``home`` and to the loopback interface.

    Args:
        home: Absolute path; becomes ``AIRFLOW_HOME``.
        dags_folder: Absolute path of the folder to scan.
        plugins_folder: Likewise; None: no plugins.
        port: Of the API server that people and programs call.
        execution_port: Of the API server that tasks call.
        home_secrets: As ``prepare_home`` returned them.
        python_path: Folders to import from, before site-packages.
        extra: Wins over everything set here, for instance ``AIRFLOW_CONN_*``.
        inherited: Where locale, proxies and certificate authorities come from; its ``AIRFLOW*`` variables do not pass.
    """
    url = f"http://{LOOPBACK}:{port}"
    options: dict[str, dict[str, object]] = {
        "core": {
            "dags_folder": dags_folder,
            "plugins_folder": plugins_folder or home / "no-plugins",
            "load_examples": False,
            "executor": "LocalExecutor",
            # As many worker processes are forked at the start.
            "parallelism": 4,
            # How soon a changed DAG replaces the one the scheduler and the UI know.
            "min_serialized_dag_update_interval": 5,
            "auth_manager": "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager",
            "simple_auth_manager_users": f"{ADMIN}:admin",
            "simple_auth_manager_passwords_file": _passwords_file(home),
            "fernet_key": home_secrets.fernet_key,
            "execution_api_server_url": f"http://{LOOPBACK}:{execution_port}/execution/",
            # The default, getfqdn, asks a name server, which may be slow to say that it cannot be reached.
            "hostname_callable": "socket.gethostname",
        },
        "database": {
            "sql_alchemy_conn": f"sqlite:///{home / 'airflow.db'}",
            # `airflow db migrate` has run just before.
            "check_migrations": False,
        },
        "logging": {"colored_console_log": False, "logging_level": "INFO"},
        "api": {
            "host": LOOPBACK,
            "port": port,
            "base_url": url,
            "workers": 1,
            "secret_key": home_secrets.api_secret_key,
        },
        "api_auth": {"jwt_secret": home_secrets.jwt_secret},
        "scheduler": {"scheduler_idle_sleep_time": 0.5, "scheduler_heartbeat_sec": _HEARTBEAT_SECONDS},
        "triggerer": {"job_heartbeat_sec": _HEARTBEAT_SECONDS},
        "dag_processor": {
            # A new or changed file is parsed as soon as it is seen; the others need no more than the default.
            "refresh_interval": 5,
            "bundle_refresh_check_interval": 1,
            "print_stats_interval": 0,
        },
        "usage_data_collection": {"enabled": False},
    }
    return {
        **{name: value for name, value in inherited.items() if name in _INHERITED},
        # So that tasks find the commands of the environment that runs Airflow.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), inherited.get("PATH", os.defpath)]),
        **_no_proxy_for_loopback(inherited),
        "PYTHONPATH": os.pathsep.join(map(str, python_path)),
        "PYTHONUNBUFFERED": "1",
        "NO_COLOR": "1",
        "AIRFLOW_HOME": str(home),
        **{
            f"AIRFLOW__{section}__{name}".upper(): str(value)
            for section, values in options.items()
            for name, value in values.items()
        },
        **(extra or {}),
    }


def _passwords_file(home: Path) -> Path:
    return home / "passwords.json"


def _no_proxy_for_loopback(inherited: Mapping[str, str]) -> dict[str, str]:
    """Keep tasks from asking a proxy for the API server on their own machine."""
    named = inherited.get("no_proxy") or inherited.get("NO_PROXY") or ""
    value = ",".join(filter(None, [named, LOOPBACK, "localhost"]))
    return {"NO_PROXY": value, "no_proxy": value}


def _write_private(path: Path, text: str) -> None:
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.unlink(missing_ok=True)
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.write(text)
    unfinished.replace(path)
