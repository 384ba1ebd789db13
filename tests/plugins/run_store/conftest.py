from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine

from peft_retraining.run_store.store import RunStore


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of an empty database; every test that takes it runs on both kinds."""
    if request.param == "postgresql":
        url: str = request.getfixturevalue("postgresql_database_url")
        return url
    return f"sqlite:///{tmp_path / 'runs.db'}"


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = create_engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def store(engine: Engine) -> RunStore:
    """A store with its tables, on either kind of database."""
    return RunStore.open(engine)
