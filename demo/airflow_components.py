"""The processes that make up a local Airflow.

Next: ``local_airflow.py`` starts them, each under a keeper of its own, and ends them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

API_SERVER = "api-server"
EXECUTION_API = "execution-api"


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One process of Airflow.

    Attributes:
        arguments: Of the command ``airflow``.
        grace_seconds: How long it may take to end before it is killed.
        ends_last: Whether the others still need it while they end.
    """

    arguments: tuple[str, ...]
    grace_seconds: float = 2
    ends_last: bool = False


# By name; the slowest to start come first.
COMPONENTS: Mapping[str, Component] = {
    # Tasks have an API server of their own. In one process with the other, on SQLite, every tenth change that a user
    # makes while tasks run stands still for five seconds and fails with "database is locked": log_action
    # (api_fastapi/logging/decorators.py of 3.3.2) commits on the event loop and so waits there for the transaction of
    # a task's request, which itself waits for the event loop to end it.
    # Both have ended their work in an instant and then clear away their memory for seconds.
    EXECUTION_API: Component(arguments=("api-server", "--apps", "execution"), ends_last=True),
    API_SERVER: Component(arguments=("api-server", "--apps", "core"), ends_last=True),
    # Its tasks get the same notice; they stop what they have started and say so to their API server.
    "scheduler": Component(arguments=("scheduler", "--skip-serve-logs"), grace_seconds=10),
    "dag-processor": Component(arguments=("dag-processor",)),
    # Half of the time it misses the end of its own child and waits ten seconds for it; it has nothing to lose.
    "triggerer": Component(arguments=("triggerer", "--skip-serve-logs")),
}
