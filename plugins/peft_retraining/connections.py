"""Airflow connections become database engines."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from airflow.providers.common.sql.hooks.sql import DbApiHook
from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowException, AirflowNotFoundException
from sqlalchemy import create_engine
from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError

from peft_retraining.configuration import airflow_home, executors
from peft_retraining.errors import InfrastructureError, PlatformError
from peft_retraining.preflight.host_checks import ONE_MACHINE_EXECUTORS
from peft_retraining.settings import Settings

_log = logging.getLogger(__name__)

_CONNECT_TIMEOUT_SECONDS = 10
_MORE_LOOKS = 2
_LOOK_PAUSE_SECONDS = 1.0


def labelled_data_engine(conn_id: str) -> Engine:
    """Return an engine for the labelled database; the caller disposes of it.

    Args:
        conn_id: An Airflow connection that is stored in Airflow, the environment or a secrets backend.

    Raises:
        InfrastructureError: The connection is not found: not defined, or Airflow did not answer.
        PlatformError: The connection cannot be used.
    """
    connection = _connection(conn_id)
    if connection is None:
        raise _not_found(conn_id, purpose="the database of the labelled conversations", setting="labelled_data_conn_id")
    return _engine_of(connection, conn_id)


def run_store_engine(conn_id: str, *, sleep: Callable[[float], None] = time.sleep) -> Engine:
    """Return an engine for the record of runs; the caller disposes of it.

    Args:
        conn_id: An Airflow connection. Where the default one is not defined and all tasks run on one machine, a SQLite
            file in the Airflow home takes its place.
        sleep: For tests.

    Raises:
        InfrastructureError: The connection is not found: not defined, or Airflow did not answer.
        PlatformError: The connection cannot be used.
    """
    file = airflow_home() / "peft_retraining.db"
    connection = _connection(conn_id)
    # Where the file was never used, a connection that is not found is more likely an Airflow that did not answer.
    for _ in range(0 if file.exists() else _MORE_LOOKS):
        if connection is None:
            sleep(_LOOK_PAUSE_SECONDS)
            connection = _connection(conn_id)
    if connection is not None:
        return _engine_of(connection, conn_id)
    if conn_id == Settings().run_store_conn_id and set(executors()) <= ONE_MACHINE_EXECUTORS:
        _log.info("The Airflow connection %r is not found: the record of runs is the SQLite file %s", conn_id, file)
        return create_engine(f"sqlite:///{file}")
    raise _not_found(conn_id, purpose="the record of runs", setting="run_store_conn_id")


def _connection(conn_id: str) -> Any:
    try:
        return BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        return None
    except PermissionError as error:
        raise PlatformError(
            f"the task may not use the Airflow connection {conn_id!r}: {error}",
            failure_code="connection_forbidden",
            remedy="Allow the DAG's team to use the connection, or name another one in the settings.",
        ) from error


def _not_found(conn_id: str, *, purpose: str, setting: str) -> InfrastructureError:
    # Airflow says the same of a connection that is not defined and of one that it could not look up just now, so this
    # has to count as something that may pass.
    return InfrastructureError(
        f"the Airflow connection {conn_id!r} for {purpose} is not defined, or Airflow could not be asked for it",
        failure_code="connection_not_found",
        remedy=f"Define it (`airflow connections add {conn_id} --conn-uri ...`), or correct the setting {setting}.",
    )


def _engine_of(connection: Any, conn_id: str) -> Engine:
    try:
        hook = connection.get_hook()
        if not isinstance(hook, DbApiHook):
            raise ValueError(f"it is of the kind {connection.conn_type!r}; expected an SQL database")
        url = hook.get_sqlalchemy_engine().url
        if url.database and url.database.startswith("//"):
            # Airflow's SQLite hook adds a slash of its own to the four of `sqlite:////path`.
            url = url.set(database="/" + url.database.lstrip("/"))
        if url.get_backend_name() != "postgresql":
            return create_engine(url)
        # A server that is away must cost a task seconds, not the kernel's two minutes. And Airflow's hook leaves out
        # what a connection asks of TLS, which libpq would then silently do without.
        extras = {name: value for name, value in connection.extra_dejson.items() if name.startswith("ssl")}
        options = {"connect_timeout": _CONNECT_TIMEOUT_SECONDS, **extras}
        return create_engine(url, pool_pre_ping=True, connect_args=options)
    except (AirflowException, SQLAlchemyError, ImportError, TypeError, ValueError, NotImplementedError) as error:
        raise PlatformError(
            f"the Airflow connection {conn_id!r} cannot be used: {error}",
            failure_code="connection_unusable",
            remedy="Use a connection whose provider is installed and offers SQL, for example sqlite or postgres.",
        ) from error
