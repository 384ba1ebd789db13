from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["states", "records", "merging", "run_state", "stored_values", "presentation"])
def test_values_and_rules_can_be_had_without_sqlalchemy_and_airflow(module: str) -> None:
    program = (
        f"import sys, peft_retraining.run_store.{module}\n"
        "print(sorted({'sqlalchemy', 'alembic', 'airflow'} & sys.modules.keys()))"
    )
    path = [entry for entry in sys.path if entry]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:] = {path!r}\n{program}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
