"""A small client of Airflow's REST API, with the calls that the demonstration and the tests need.

In: the URL of an API server and a user. Out: the API's own JSON documents, with Airflow's own names.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

# A document of the API, as Airflow sent it.
Document = dict[str, Any]

FINISHED_RUN_STATES = frozenset({"success", "failed"})
_POLL_SECONDS = 0.5
_PAGE_SIZE = 100


class AirflowRestError(RuntimeError):
    """A request was answered with an error, or not at all.

    Attributes:
        status_code: Of the answer; None when there was none.
        detail: What the server said about the error, or why there was no answer.
    """

    def __init__(self, request: httpx.Request, *, status_code: int | None, detail: str) -> None:
        """Describe what became of ``request``."""
        self.status_code = status_code
        self.detail = detail
        outcome = "got no answer" if status_code is None else f"was answered {status_code}"
        super().__init__(f"{request.method} {request.url} {outcome}: {detail}")


class RunNotFinishedError(TimeoutError):
    """A DAG run went on for longer than the caller would wait."""


class AirflowRest:
    """Calls an API server as one user; signs in at the first call that needs it."""

    def __init__(self, base_url: str, *, username: str, password: str, timeout_seconds: float = 30) -> None:
        """Name the server and the user; nothing is sent yet.

        Args:
            base_url: Without a trailing slash, for instance ``http://127.0.0.1:8080``.
            username: As the auth manager knows it.
            password: Likewise.
            timeout_seconds: For one request.
        """
        self._username = username
        self._password = password
        # No proxy of the environment is to come between this process and its own machine.
        self._http = httpx.Client(
            base_url=base_url,
            timeout=timeout_seconds,
            trust_env=False,
            # A kept connection may break just when it is used again: the server closes it after an error of its own.
            limits=httpx.Limits(max_keepalive_connections=0),
        )

    def __enter__(self) -> Self:
        """Return the client itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        self.close()

    def close(self) -> None:
        """Close the connections; a second time does nothing."""
        self._http.close()

    def request(
        self, method: str, path: str, *, params: Mapping[str, Any] | None = None, body: object = None
    ) -> httpx.Response:
        """Send one request as the user and return its answer.

        Args:
            method: Of HTTP.
            path: From the root of the server, for instance ``/api/v2/dags``; plugins' pages too.
            params: The query.
            body: Sent as JSON; None: no body.

        Raises:
            AirflowRestError: When the answer is an error, or there is none.
        """
        if "Authorization" not in self._http.headers:
            self._sign_in()
        try:
            return self._answer(method, path, params=params, json=body)
        except AirflowRestError as error:
            if error.status_code != httpx.codes.UNAUTHORIZED:
                raise
        self._sign_in()  # The token is a day old.
        return self._answer(method, path, params=params, json=body)

    def health(self) -> Document:
        """Return what the server says of each component; needs no user."""
        return _document(self._answer("GET", "/api/v2/monitor/health"))

    def dags(self) -> list[Document]:
        """Return all DAGs that were ever parsed and are not stale."""
        return self._listed("/api/v2/dags", "dags")

    def import_errors(self) -> list[Document]:
        """Return the DAG files that could not be imported: ``filename``, ``stack_trace``, ``timestamp``."""
        return self._listed("/api/v2/importErrors", "import_errors")

    def plugins(self) -> list[Document]:
        """Return the plugins that the API server has loaded."""
        return self._listed("/api/v2/plugins", "plugins")

    def plugin_import_errors(self) -> list[Document]:
        """Return the plugin files that the API server could not import: ``source``, ``error``."""
        return self._listed("/api/v2/plugins/importErrors", "import_errors")

    def unpause(self, dag_id: str) -> None:
        """Let the scheduler run the DAG."""
        self.request("PATCH", f"/api/v2/dags/{_part(dag_id)}", body={"is_paused": False})

    def trigger(
        self, dag_id: str, *, conf: Mapping[str, object] | None = None, logical_date: datetime | None = None
    ) -> str:
        """Start a manual run and return its ``run_id``.

        Args:
            dag_id: Of a DAG that is not paused; else the run stays queued.
            conf: Overrides the DAG's params.
            logical_date: With a time zone; None, as in the UI: the run has no logical date and no data interval.

        Raises:
            AirflowRestError: 400 when ``conf`` does not fit the params' schema, 404 when there is no such DAG.
        """
        body = {"conf": dict(conf or {}), "logical_date": logical_date.isoformat() if logical_date else None}
        answer = self.request("POST", f"/api/v2/dags/{_part(dag_id)}/dagRuns", body=body)
        return str(_document(answer)["dag_run_id"])

    def dag_run(self, dag_id: str, run_id: str) -> Document:
        """Return one run."""
        return _document(self.request("GET", _run_path(dag_id, run_id)))

    def dag_runs(self, dag_id: str) -> list[Document]:
        """Return all runs of a DAG, the oldest first."""
        return self._listed(f"/api/v2/dags/{_part(dag_id)}/dagRuns", "dag_runs", order_by="id")

    def wait_for_run(
        self, dag_id: str, run_id: str, *, timeout_seconds: float, on_poll: Callable[[Document], None] | None = None
    ) -> str:
        """Wait until a run has finished and return its state, ``success`` or ``failed``.

        Args:
            dag_id: Of the run.
            run_id: Likewise.
            timeout_seconds: How long to wait at most.
            on_poll: Called with the run each time it was looked at, twice a second.

        Raises:
            RunNotFinishedError: With the state of each task, when the run goes on for longer.
        """
        deadline = time.monotonic() + timeout_seconds
        while True:
            run = self.dag_run(dag_id, run_id)
            if on_poll is not None:
                on_poll(run)
            if run["state"] in FINISHED_RUN_STATES:
                return str(run["state"])
            if time.monotonic() > deadline:
                tasks = ", ".join(f"{task['task_id']} {task['state']}" for task in self.task_instances(dag_id, run_id))
                raise RunNotFinishedError(
                    f"run {run_id} of {dag_id} is still {run['state']} after {timeout_seconds:g} s ({tasks})"
                )
            time.sleep(_POLL_SECONDS)

    def task_instances(self, dag_id: str, run_id: str) -> list[Document]:
        """Return the task instances of a run."""
        return self._listed(f"{_run_path(dag_id, run_id)}/taskInstances", "task_instances")

    def task_instance(self, dag_id: str, run_id: str, task_id: str) -> Document:
        """Return one task instance that is not mapped."""
        return _document(self.request("GET", _task_path(dag_id, run_id, task_id)))

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value", *, map_index: int = -1) -> Any:
        """Return the value that a task pushed, as plain JSON; what JSON has no form for comes as Airflow encoded it.

        Raises:
            AirflowRestError: 404 when it pushed none under ``key``.
        """
        path = f"{_task_path(dag_id, run_id, task_id)}/xcomEntries/{_part(key)}"
        return _document(self.request("GET", path, params={"map_index": map_index}))["value"]

    def task_log(self, dag_id: str, run_id: str, task_id: str, *, try_number: int = 1, map_index: int = -1) -> str:
        """Return the log of one try as text, a line for each entry and for each exception behind it."""
        path = f"{_task_path(dag_id, run_id, task_id)}/logs/{try_number}"
        content = _document(self.request("GET", path, params={"full_content": True, "map_index": map_index}))["content"]
        return "\n".join(entry if isinstance(entry, str) else _log_line(entry) for entry in content)

    def asset_events(self, **filters: str | int) -> list[Document]:
        """Return asset events, the oldest first.

        Args:
            **filters: The API's own, for instance ``source_dag_id``, ``source_run_id``, ``name_pattern``.
        """
        return self._listed("/api/v2/assets/events", "asset_events", order_by="timestamp", **filters)

    def _sign_in(self) -> None:
        body = {"username": self._username, "password": self._password}
        self._http.headers.pop("Authorization", None)
        token = _document(self._answer("POST", "/auth/token", json=body))["access_token"]
        self._http.headers["Authorization"] = f"Bearer {token}"

    def _answer(
        self, method: str, path: str, *, params: Mapping[str, Any] | None = None, json: object = None
    ) -> httpx.Response:
        request = self._http.build_request(method, path, params=params, json=json)
        try:
            response = self._http.send(request)
        except httpx.TransportError as error:
            raise AirflowRestError(request, status_code=None, detail=str(error)) from error
        if response.is_success:
            return response
        raise AirflowRestError(request, status_code=response.status_code, detail=_detail(response))

    def _listed(self, path: str, name: str, **params: str | int) -> list[Document]:
        return list(self._pages(path, name, params))

    def _pages(self, path: str, name: str, params: Mapping[str, str | int]) -> Iterator[Document]:
        offset = 0
        while True:
            answer = _document(self.request("GET", path, params={**params, "limit": _PAGE_SIZE, "offset": offset}))
            entries: list[Document] = answer[name]
            yield from entries
            offset += len(entries)
            if not entries or offset >= answer["total_entries"]:
                return


def _run_path(dag_id: str, run_id: str) -> str:
    return f"/api/v2/dags/{_part(dag_id)}/dagRuns/{_part(run_id)}"


def _task_path(dag_id: str, run_id: str, task_id: str) -> str:
    return f"{_run_path(dag_id, run_id)}/taskInstances/{_part(task_id)}"


def _part(name: str) -> str:
    """Return ``name`` as one part of a path; a run id holds ``+`` and ``:``."""
    return quote(name, safe="")


def _log_line(entry: Document) -> str:
    line = " ".join(str(entry[name]) for name in ("timestamp", "level", "event") if entry.get(name))
    errors = [f"{error['exc_type']}: {error['exc_value']}" for error in entry.get("error_detail") or ()]
    return "\n".join([line, *errors])


def _document(response: httpx.Response) -> Document:
    document: Document = response.json()
    return document


def _detail(response: httpx.Response) -> str:
    try:
        answer = response.json()
    except json.JSONDecodeError:
        return response.text[:1000]
    detail = answer.get("detail", answer) if isinstance(answer, dict) else answer
    return detail if isinstance(detail, str) else json.dumps(detail)[:1000]
