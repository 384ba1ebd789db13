"""Tell what a starting Airflow still lacks, from what its API servers say.

In: a client and the times at which components were started. Out: one line on what is missing, None when nothing is.
A home that was used before still holds heartbeats and DAGs of its last life; only what is newer counts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta

import httpx

from demo.airflow_components import API_SERVER, EXECUTION_API
from demo.airflow_rest import AirflowRest, AirflowRestError

# The components that write heartbeats, and what the API's health document calls them.
_HEALTH_NAMES = {"scheduler": "scheduler", "dag-processor": "dag_processor", "triggerer": "triggerer"}
_FIRST_ANSWER_SECONDS = 60
_IMPORT_ERROR_PATIENCE = timedelta(seconds=5)


class DagImportError(RuntimeError):
    """A DAG that is waited for was not parsed, and files in its folder cannot be imported."""


def missing_component(
    rest: AirflowRest, *, execution_api_url: str, started_at: Mapping[str, datetime]
) -> tuple[str, str] | None:
    """Return the name of a component that was started and does not work yet, and the reason; None when all work.

    Args:
        rest: Of the API server for people.
        execution_api_url: Of the API server for tasks, with a trailing slash.
        started_at: When each component was started, by name, in UTC. Without the API server, the components that write
            heartbeats are not looked at.
    """
    if EXECUTION_API in started_at:
        try:
            # Its first answer takes seconds of computing, more than a task would wait for the answer to its first call.
            httpx.get(f"{execution_api_url}health", timeout=_FIRST_ANSWER_SECONDS, trust_env=False).raise_for_status()
        except httpx.HTTPError as error:
            return EXECUTION_API, str(error)
    if API_SERVER not in started_at:
        return None
    try:
        health = rest.health()
    except AirflowRestError as error:
        return API_SERVER, str(error)
    if health["metadatabase"]["status"] != "healthy":
        return API_SERVER, f"the database is {health['metadatabase']['status']}"
    for name in _HEALTH_NAMES.keys() & started_at.keys():
        component = health[_HEALTH_NAMES[name]]
        heartbeat = component.get(f"latest_{_HEALTH_NAMES[name]}_heartbeat")
        if component["status"] != "healthy" or heartbeat is None or _time(heartbeat) < started_at[name]:
            return name, f"the last heartbeat was at {heartbeat}"
    return None


def missing_dag(rest: AirflowRest, dag_ids: Collection[str], *, since: datetime) -> tuple[str, str] | None:
    """Return the DAG processor and which of the DAGs it has not parsed since then; None when it has parsed all.

    Raises:
        DagImportError: When some were not parsed, and files failed to import some seconds ago.
    """
    if not dag_ids:
        return None
    parsed = {dag["dag_id"] for dag in rest.dags() if _time(dag["last_parsed_time"] or "0001-01-01T00Z") >= since}
    missing = ", ".join(sorted(set(dag_ids) - parsed))
    if not missing:
        return None
    errors = [error for error in rest.import_errors() if _time(error["timestamp"]) >= since]
    if any(datetime.now(UTC) - _time(error["timestamp"]) > _IMPORT_ERROR_PATIENCE for error in errors):
        traces = "\n".join(f"{error['filename']}:\n{error['stack_trace']}" for error in errors)
        raise DagImportError(f"{missing} cannot be parsed; these files cannot be imported:\n{traces}")
    return "dag-processor", f"{missing} not parsed yet"


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
