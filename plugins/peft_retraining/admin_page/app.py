"""The web application that Airflow's api-server mounts under ``/peft-retraining``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_dag
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query, Request, status
from fastapi.responses import JSONResponse

from peft_retraining import __version__
from peft_retraining.configuration import load_settings
from peft_retraining.connections import run_store_engine
from peft_retraining.errors import RetrainingError
from peft_retraining.run_store.presentation import run_as_dict
from peft_retraining.run_store.states import RunState
from peft_retraining.run_store.store import CursorInvalid, RunStore

MAX_PAGE_RUNS = 100


def run_store() -> Iterator[RunStore]:
    """Open the record of runs for one request."""
    engine = run_store_engine(load_settings().run_store_conn_id)
    try:
        yield RunStore.open(engine)
    finally:
        engine.dispose()


Store = Annotated[RunStore, Depends(run_store)]
router = APIRouter(prefix="/api/v1", tags=["runs"])


@router.get("/runs")
def list_runs(
    user: GetUserDep,
    store: Store,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE_RUNS)] = 25,
    before: Annotated[str | None, Query(max_length=100)] = None,
    state: RunState | None = None,
) -> dict[str, Any]:
    """List the runs of the DAGs that the user may read, newest first.

    ``next`` is what to give as ``before`` for the page after; it is absent on the last one.
    """
    readable = get_auth_manager().get_authorized_dag_ids(user=user, method="GET")
    runs = store.runs(limit + 1, before=before, state=state, dag_ids=readable)
    answer: dict[str, Any] = {"runs": [run_as_dict(run) for run in runs[:limit]]}
    if len(runs) > limit:
        answer["next"] = runs[limit - 1].cursor
    return answer


@router.get(
    "/dags/{dag_id}/runs/{run_id:path}", dependencies=[Depends(requires_access_dag("GET", DagAccessEntity.RUN))]
)
def show_run(dag_id: str, run_id: str, store: Store) -> dict[str, Any]:
    """Show one run with its attempts, without what the trainer printed: that may hold people's text."""
    run = store.run_of(dag_id, run_id)
    if run is None:
        raise HTTPException(status.HTTP_404_NOT_FOUND, f"no run {run_id!r} of the DAG {dag_id!r} is recorded")
    body = run_as_dict(run)
    for attempt in body["attempts"]:
        attempt.pop("stdout", None)
        attempt.pop("stderr", None)
    return body


def create_app() -> FastAPI:
    """Build the application; nothing is read or opened before the first request."""
    app = FastAPI(title="PEFT retraining", version=__version__, openapi_url=None)
    app.include_router(router)
    app.add_exception_handler(RetrainingError, _unavailable)
    app.add_exception_handler(CursorInvalid, _not_understood)
    return app


def _not_understood(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, status.HTTP_422_UNPROCESSABLE_CONTENT)


def _unavailable(_: Request, error: Exception) -> JSONResponse:
    code = error.failure_code if isinstance(error, RetrainingError) else "error"
    return JSONResponse({"detail": str(error), "failure_code": code}, status.HTTP_503_SERVICE_UNAVAILABLE)
