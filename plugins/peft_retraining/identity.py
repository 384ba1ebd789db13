"""Who a training run and its attempts are, in Airflow's words and in ours."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


def training_run_id(dag_id: str, run_id: str) -> str:
    """Return our id of the training run that a DAG run is.

    It is derived, so that every process comes to the same id without asking anyone.

    Returns:
        16 hexadecimal digits.
    """
    return hashlib.sha256(f"{dag_id}\x00{run_id}".encode("utf-8", "surrogatepass")).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptKey:
    """One try of one task of one DAG run.

    Attributes:
        dag_id: As Airflow has it.
        run_id: Likewise.
        task_id: Likewise.
        map_index: Likewise; -1 for a task that is not mapped.
        try_number: Likewise; counts on when a task is cleared.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1
    try_number: int = 1

    @property
    def training_run_id(self) -> str:
        """Our id of the training run."""
        return training_run_id(self.dag_id, self.run_id)
