"""Airflow connections become database engines."""

from __future__ import annotations

from typing import Any

from airflow.providers.common.sql.hooks.sql import DbApiHook
from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException
from sqlalchemy import create_engine
from sqlalchemy.engine import Engine

from peft_retraining.configuration import airflow_home
from peft_retraining.errors import UserError

_CONNECT_TIMEOUT_SECONDS = 10


def labelled_data_engine(conn_id: str) -> Engine:
    """Return an engine for the labelled database; the caller disposes of it.

    Args:
        conn_id: An Airflow connection that is stored in Airflow, the environment or a secrets backend.

    Raises:
        UserError: The connection is not defined or is of no SQL kind.
    """
    connection = _connection(conn_id)
    if connection is None:
        raise UserError(
            f"the Airflow connection {conn_id!r} is not defined; expected the database of the labelled conversations",
            failure_code="labelled_data_connection_missing",
            remedy=f"Define it (`airflow connections add {conn_id} --conn-uri ...`), or name another in the setting "
            "labelled_data_conn_id.",
        )
    return _engine_of(connection, conn_id)


def run_store_engine(conn_id: str) -> Engine:
    """Return an engine for the record of runs; the caller disposes of it.

    Args:
        conn_id: An Airflow connection; when it is not defined, a SQLite file in the Airflow home is used.

    Raises:
        UserError: The connection is of no SQL kind.
    """
    connection = _connection(conn_id)
    if connection is None:
        return create_engine(f"sqlite:///{airflow_home() / 'peft_retraining.db'}")
    return _engine_of(connection, conn_id)


def _connection(conn_id: str) -> Any:
    try:
        return BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        return None


def _engine_of(connection: Any, conn_id: str) -> Engine:
    hook = connection.get_hook()
    if not isinstance(hook, DbApiHook):
        raise UserError(
            f"the Airflow connection {conn_id!r} is of the kind {connection.conn_type!r}; expected an SQL database",
            failure_code="connection_not_sql",
            remedy="Use a connection of a kind whose provider offers SQL, for example sqlite or postgres.",
        )
    url = hook.get_sqlalchemy_engine().url
    if url.get_backend_name() != "postgresql":
        return create_engine(url)
    # A server that is away must cost a task seconds, not the kernel's two minutes.
    return create_engine(url, pool_pre_ping=True, connect_args={"connect_timeout": _CONNECT_TIMEOUT_SECONDS})
