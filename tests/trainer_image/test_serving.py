"""A published adapter answers as it did in training, and a changed file is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from peft_trainer.attempt import run_attempt
from peft_trainer.serving import load_latest
from training_contract.adapter_manifest import LATEST_NAME, MANIFEST_NAME, AdapterManifest
from training_contract.documents import read_document, write_document
from training_contract.errors import DocumentInvalid
from training_contract.exit_codes import ExitCode
from training_contract.locations import AttemptDirectory, RunDirectory
from training_contract.result import TrainingResult

pytestmark = pytest.mark.usefixtures("in_process")


def publish(attempt: AttemptDirectory, result: TrainingResult, adapters: Path) -> Path:
    """Publish an attempt's adapter as the Airflow side does."""
    version = adapters / "assistant" / "versions" / "20261101"
    version.parent.mkdir(parents=True)
    attempt.adapter_directory.rename(version)
    manifest = AdapterManifest(
        adapter_name="assistant",
        version=version.name,
        training_run_id=result.training_run_id,
        dag_id="nightly",
        run_id="scheduled",
        window_ends_at="2026-11-02T00:00:00+00:00",
        data_digest=result.data_digest,
        base_model_name_or_path=result.base_model_name_or_path,
        peft_type=result.peft_type,
        base_heldout_loss=result.metrics.base_heldout_loss,
        adapter_heldout_loss=result.metrics.adapter_heldout_loss,
        files=result.adapter_files,
        published_at=result.finished_at,
    )
    write_document(version / MANIFEST_NAME, manifest)
    (adapters / "assistant" / LATEST_NAME).symlink_to(Path("versions") / version.name)
    return version


@pytest.mark.parametrize(
    ("kind", "peft_type"),
    [("causal", "LORA"), ("causal", "PROMPT_TUNING"), ("seq2seq", "LORA"), ("seq2seq", "PROMPT_TUNING")],
)
def test_a_published_adapter_answers_as_the_result_says(
    request: pytest.FixtureRequest,
    make_run: Callable[..., RunDirectory],
    tmp_path: Path,
    kind: str,
    peft_type: str,
) -> None:
    model = request.getfixturevalue(f"tiny_{kind}")
    run = make_run(model, peft_type=peft_type, training={"max_steps": 4, "learning_rate": 0.1, "warmup_ratio": 0.0})
    attempt = run.open_attempt()
    assert run_attempt(run, attempt) is ExitCode.SUCCESS
    result = read_document(attempt.result_file, TrainingResult)
    version = publish(attempt, result, tmp_path / "adapters")

    adapter = load_latest(tmp_path / "adapters", "assistant")
    for sample in result.samples:
        assert adapter.answer(sample.prompt, max_new_tokens=8) == sample.adapter_answer
        assert adapter.base_answer(sample.prompt, max_new_tokens=8) == sample.base_answer
        assert adapter.answer(sample.prompt, max_new_tokens=8) == sample.adapter_answer
    assert adapter.manifest.version == version.name

    (version / "tokenizer.json").write_text("{}")
    with pytest.raises(DocumentInvalid, match=r"tokenizer\.json"):
        load_latest(tmp_path / "adapters", "assistant")


def test_nothing_published_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no adapter is published"):
        load_latest(tmp_path, "assistant")
