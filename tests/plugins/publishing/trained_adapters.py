"""Adapters as an attempt leaves them behind: files, and a result that vouches for them. Standard library only."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from peft_retraining.identity import training_run_id
from peft_retraining.publishing.adapter_store import AdapterStore
from peft_retraining.publishing.publication import PublishedAdapter, publish
from training_contract.documents import read_document, write_document
from training_contract.durable_files import TEMPORARY_PREFIX
from training_contract.result import FileEntry, TrainingMetrics, TrainingResult

DAG_ID = "nightly_peft_retraining"

METRICS = TrainingMetrics(
    base_heldout_loss=2.5,
    adapter_heldout_loss=1.25,
    train_loss=1.5,
    global_step=30,
    trained_row_count=120,
    trained_token_count=4800,
    heldout_row_count=12,
    too_long_row_count=0,
    trainable_parameter_count=1024,
    train_seconds=12.5,
    peak_memory_bytes=1_000_000,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedAdapter:
    """A finished attempt, and the run it belongs to."""

    source: Path
    result: TrainingResult
    run_id: str
    window_ends_at: datetime

    def publish_to(self, store: AdapterStore, **options: Any) -> PublishedAdapter:
        return publish(
            store,
            self.source,
            self.result,
            dag_id=DAG_ID,
            run_id=self.run_id,
            window_ends_at=self.window_ends_at,
            **options,
        )


def night(day: int, hour: int = 2) -> datetime:
    return datetime(2026, 11, day, hour, tzinfo=UTC)


def train_adapter(
    root: Path,
    window_ends_at: datetime,
    *,
    weights: bytes = b"weights",
    run_id: str | None = None,
    metrics: TrainingMetrics = METRICS,
) -> TrainedAdapter:
    """Leave an attempt in ``root`` as the trainer does: the adapter's files first, the result last."""
    run_id = run_id or f"scheduled__{window_ends_at.isoformat()}"
    files = {
        "adapter_config.json": b'{"peft_type": "LORA"}',
        "adapter_model.safetensors": weights + window_ends_at.isoformat().encode("ascii"),
        "tokenizer/tokenizer.json": b"{}",
    }
    source = root / "adapter"
    for name, content in files.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(content)
    result = TrainingResult(
        training_run_id=training_run_id(DAG_ID, run_id),
        peft_type="LORA",
        base_model_name_or_path="HuggingFaceTB/SmolLM2-135M-Instruct",
        base_model_revision="12fd25f77366fa6b3b4b768ec3050bf629380bac",
        data_digest="sha256:" + hashlib.sha256(window_ends_at.isoformat().encode("ascii")).hexdigest(),
        adapter_files=file_entries(files),
        metrics=metrics,
        finished_at="2026-11-10T02:10:00+00:00",
    )
    write_document(root / "result.json", result)
    (root / "run.json").write_text(json.dumps({"run_id": run_id, "window_ends_at": window_ends_at.isoformat()}))
    return TrainedAdapter(source=source, result=result, run_id=run_id, window_ends_at=window_ends_at)


def read_trained(root: Path) -> TrainedAdapter:
    run = json.loads((root / "run.json").read_text())
    return TrainedAdapter(
        source=root / "adapter",
        result=read_document(root / "result.json", TrainingResult),
        run_id=run["run_id"],
        window_ends_at=datetime.fromisoformat(run["window_ends_at"]),
    )


def file_entries(files: Mapping[str, bytes]) -> dict[str, FileEntry]:
    return {
        name: FileEntry(sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))
        for name, content in files.items()
    }


def temporary_paths(store: AdapterStore) -> list[Path]:
    """What publishers that died left behind, anywhere in the store."""
    return [path for path in store.adapters_directory.rglob("*") if path.name.startswith(TEMPORARY_PREFIX)]
