"""One example of every document of the contract; the golden files beside it are what they look like on disk.

A golden file is never edited: a document that no longer reads is a new major version of the contract. Something new and
optional gets a new example and a new golden file.
"""

from __future__ import annotations

from training_contract.adapter_manifest import AdapterManifest
from training_contract.failure import ExceptionEntry, FailureReport
from training_contract.preflight_report import CacheState, Finding, Severity, TrainerPreflightReport
from training_contract.process_exit import ProcessExit
from training_contract.result import FileEntry, Sample, TrainingMetrics, TrainingResult
from training_contract.run_spec import BaseModelSpec, DataSpec, GpuUse, LimitsSpec, RunSpec, TrainingSpec
from training_contract.snapshot import SnapshotManifest

_FILE = FileEntry(sha256="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", size_bytes=4)

EXAMPLES: dict[str, object] = {
    "spec": RunSpec(
        training_run_id="0123456789abcdef",
        adapter_name="assistant",
        base_model=BaseModelSpec(
            base_model_name_or_path="google/flan-t5-small",
            revision="0fc9ddf78a1e988dac52e2dac162b0ede4fd74ab",
            local_files_only=True,
            cache_directory="/var/cache/models",
        ),
        peft_type="LORA",
        peft_settings={"r": 8, "target_modules": ["q", "v"], "use_dora": False},
        training=TrainingSpec(num_train_epochs=1.0, max_steps=100, seed=7),
        data=DataSpec(digest="sha256:ab", train_row_count=90, heldout_row_count=10),
        limits=LimitsSpec(gpu=GpuUse.REQUIRED, cpu_threads=2),
        versions={"airflow-peft-retraining": "0.1.0"},
    ),
    "snapshot": SnapshotManifest(
        digest="sha256:ab",
        train_row_count=90,
        heldout_row_count=10,
        refused_row_counts={"duplicate": 2},
        new_rows_since=None,
        window_ends_at="2026-11-11T02:00:00+00:00",
        oldest_row_at="2026-11-01T00:00:00.000000+00:00",
        newest_row_at="2026-11-11T01:59:59.000000+00:00",
        frozen_at="2026-11-11T02:00:05+00:00",
        query={"table": "ask_ai_queries"},
    ),
    "result": TrainingResult(
        training_run_id="0123456789abcdef",
        peft_type="LORA",
        base_model_name_or_path="google/flan-t5-small",
        base_model_revision=None,
        data_digest="sha256:ab",
        adapter_files={"adapter_model.safetensors": _FILE},
        metrics=TrainingMetrics(
            base_heldout_loss=3.5,
            adapter_heldout_loss=1.25,
            train_loss=1.5,
            global_step=100,
            trained_row_count=90,
            trained_token_count=2700,
            heldout_row_count=10,
            too_long_row_count=0,
            trainable_parameter_count=344064,
            train_seconds=61.5,
            peak_memory_bytes=1610612736,
            peak_gpu_memory_bytes=None,
        ),
        samples=(Sample(prompt="p", expected="e", base_answer="b", adapter_answer="a"),),
        versions={"peft": "0.21.2"},
        finished_at="2026-11-11T02:06:00+00:00",
    ),
    "failure": FailureReport(
        exit_code=30,
        failure_code="model_not_cached",
        message="the base model is not in the cache",
        remedy="peft-retraining cache prefetch",
        phase="loading_model",
        failed_at="2026-11-11T02:01:00+00:00",
        exceptions=(ExceptionEntry(type="OSError", message="not found", traceback="Traceback"),),
        memory={"resident_bytes": 1024},
    ),
    "process_exit": ProcessExit(
        exit_code=137,
        signal=9,
        oom_kill_count=1,
        peak_memory_bytes=2048,
        stop_requested=False,
        stdout_bytes=10,
        stderr_bytes=20,
        started_at="2026-11-11T02:00:30+00:00",
        ended_at="2026-11-11T02:06:00+00:00",
    ),
    "preflight": TrainerPreflightReport(
        findings=(
            Finding(
                code="MODEL_CACHE_ABSENT",
                severity=Severity.ERROR,
                message="not there",
                remedy="peft-retraining cache prefetch",
                evidence={"directory": "/var/cache/models"},
            ),
        ),
        versions={"torch": "2.13.0"},
        cache_state=CacheState.ABSENT,
        base_model_revision=None,
        checked_at="2026-11-11T02:00:10+00:00",
    ),
    "manifest": AdapterManifest(
        adapter_name="assistant",
        version="20261111T020000Z-9f86d081",
        training_run_id="0123456789abcdef",
        dag_id="nightly_peft_retraining",
        run_id="scheduled__2026-11-11T02:00:00+00:00",
        window_ends_at="2026-11-11T02:00:00+00:00",
        data_digest="sha256:ab",
        base_model_name_or_path="google/flan-t5-small",
        base_model_revision=None,
        peft_type="LORA",
        base_heldout_loss=3.5,
        adapter_heldout_loss=1.25,
        files={"adapter_model.safetensors": _FILE},
        published_at="2026-11-11T02:07:00+00:00",
    ),
}
