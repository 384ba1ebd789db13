from __future__ import annotations

from pathlib import Path

import pytest

from peft_retraining.publishing.adapter_store import AdapterStore


@pytest.fixture
def store(tmp_path: Path) -> AdapterStore:
    """An empty store in an adapters directory that exists, as the installation leaves it."""
    adapters_directory = tmp_path / "adapters"
    adapters_directory.mkdir()
    return AdapterStore(adapters_directory, "assistant")
