"""Preflight finds planted faults before the training does, all at once, and finds nothing where there is nothing."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from peft_trainer import environment, memory, preflight
from peft_trainer.preflight import check_run, write_report
from training_contract.documents import read_document
from training_contract.exit_codes import ExitCode
from training_contract.locations import RunDirectory
from training_contract.preflight_report import CacheState, Severity, TrainerPreflightReport

from .conftest import write_rows
from .hub_cache import COMMIT, HUB_ID, fill_cache
from .tiny_models import labelled_rows

MakeRun = Callable[..., RunDirectory]
Codes = dict[str, Severity]


def codes_of(run: RunDirectory) -> Codes:
    return {finding.code: finding.severity for finding in check_run(run).findings}


def errors_of(run: RunDirectory) -> list[str]:
    return [finding.code for finding in check_run(run).findings if finding.severity is Severity.ERROR]


@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
@pytest.mark.parametrize("peft_type", ["LORA", "PROMPT_TUNING"])
def test_a_healthy_run_has_no_errors_and_no_warnings(
    request: pytest.FixtureRequest, make_run: MakeRun, kind: str, peft_type: str
) -> None:
    report = check_run(make_run(request.getfixturevalue(f"tiny_{kind}"), peft_type=peft_type))
    assert [(finding.code, finding.severity) for finding in report.findings] == [
        ("MODEL_CACHE_COMPLETE", Severity.INFO)
    ]
    assert report.cache_state is CacheState.COMPLETE
    assert report.versions["torch"]


def test_the_report_is_written_and_is_the_answer_even_with_errors(
    make_run: MakeRun, tiny_causal: Path, in_process: None
) -> None:
    run = make_run(tiny_causal, peft_type="HYPNOSIS")
    assert write_report(run) is ExitCode.SUCCESS
    report = read_document(run.preflight_file, TrainerPreflightReport)
    assert report.findings[0].code == "UNSUPPORTED_PEFT_TYPE"
    assert report.findings[0].remedy


def test_all_findings_come_at_once_errors_first(make_run: MakeRun, tiny_causal: Path) -> None:
    run = make_run(tiny_causal, peft_settings={"r": 0}, training={"learning_rate": -1.0}, data={"digest": "sha256:0"})
    findings = check_run(run).findings
    assert {finding.code for finding in findings if finding.severity is Severity.ERROR} == {
        "ADAPTER_SETTINGS_INVALID",
        "TRAINING_SETTINGS_INVALID",
        "SNAPSHOT_INVALID",
    }
    severities = [list(Severity).index(finding.severity) for finding in findings]
    assert severities == sorted(severities)


def _no_spec(run: RunDirectory, model: Path) -> None:
    run.spec_file.unlink()


def _other_rows(run: RunDirectory, model: Path) -> None:
    write_rows(run, labelled_rows()[2:])


def _no_rows(run: RunDirectory, model: Path) -> None:
    run.rows_file.unlink()


def _torn_rows(run: RunDirectory, model: Path) -> None:
    run.rows_file.write_bytes(run.rows_file.read_bytes()[:50])


def _cut_weights(run: RunDirectory, model: Path) -> None:
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])


def _pickled_weights(run: RunDirectory, model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")


def _no_tokenizer(run: RunDirectory, model: Path) -> None:
    (model / "tokenizer.json").unlink()


def _unknown_architecture(run: RunDirectory, model: Path) -> None:
    config = model / "config.json"
    config.write_text(config.read_text().replace('"llama"', '"llamoid"'))


def _no_model(run: RunDirectory, model: Path) -> None:
    shutil.rmtree(model)


@pytest.mark.parametrize(
    ("plant", "code"),
    [
        (_no_spec, "SPEC_INVALID"),
        (_other_rows, "SNAPSHOT_INVALID"),
        (_no_rows, "SNAPSHOT_INVALID"),
        (_torn_rows, "SNAPSHOT_INVALID"),
        (_cut_weights, "MODEL_FILES_INVALID"),
        (_pickled_weights, "MODEL_UNSAFE_FORMAT"),
        (_no_tokenizer, "MODEL_FILES_INVALID"),
        (_unknown_architecture, "MODEL_FILES_INVALID"),
        (_no_model, "MODEL_DIRECTORY_MISSING"),
    ],
)
def test_a_planted_fault_is_found(
    make_run: MakeRun, tiny_causal: Path, tmp_path: Path, plant: Callable[[RunDirectory, Path], None], code: str
) -> None:
    model = Path(shutil.copytree(tiny_causal, tmp_path / "model"))
    run = make_run(model)
    plant(run, model)
    assert errors_of(run) == [code]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"peft_settings": {"rank": 4}}, "ADAPTER_SETTINGS_INVALID"),
        ({"peft_settings": {"target_modules": ["none"]}}, "ADAPTER_SETTINGS_INVALID"),
        ({"training": {"per_device_train_batch_size": 0}}, "TRAINING_SETTINGS_INVALID"),
        ({"limits": {"gpu": "required"}}, "GPU_UNAVAILABLE"),
        ({"rows": [row for row in labelled_rows() if row["split"] == "train"]}, "DATA_EMPTY"),
    ],
)
def test_a_setting_that_cannot_work_is_found(
    make_run: MakeRun, tiny_causal: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], code: str
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)  # also where there is one
    assert errors_of(make_run(tiny_causal, **changes)) == [code]


def test_a_gpu_that_is_only_wished_for_is_no_error(
    make_run: MakeRun, tiny_causal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    run = make_run(tiny_causal, limits={"gpu": "if_available"})
    assert codes_of(run)["GPU_ABSENT"] is Severity.INFO


@pytest.mark.parametrize(
    ("local_files_only", "severity"), [(True, Severity.ERROR), (False, Severity.WARNING)], ids=["offline", "online"]
)
@pytest.mark.parametrize("state", ["absent", "partial"])
def test_a_cache_that_is_not_filled_stops_only_a_run_that_may_not_download(  # noqa: PLR0917  # two tables
    make_run: MakeRun, tiny_causal: Path, tmp_path: Path, local_files_only: bool, severity: Severity, state: str
) -> None:
    cache = tmp_path / "cache"
    if state == "partial":
        (fill_cache(cache, tiny_causal) / "model.safetensors").resolve().unlink()
    run = make_run(
        HUB_ID, base_model={"cache_directory": str(cache), "revision": "main", "local_files_only": local_files_only}
    )
    report = check_run(run)
    finding = next(finding for finding in report.findings if finding.code == f"MODEL_CACHE_{state.upper()}")
    assert finding.severity is severity
    assert finding.remedy.endswith(f"peft-retraining cache prefetch --base-model {HUB_ID} --revision main")
    assert report.cache_state == state


def test_the_commit_behind_a_branch_is_told(make_run: MakeRun, tiny_causal: Path, tmp_path: Path) -> None:
    fill_cache(tmp_path / "cache", tiny_causal)
    run = make_run(HUB_ID, base_model={"cache_directory": str(tmp_path / "cache"), "revision": "main"})
    report = check_run(run)
    assert (report.base_model_revision, report.cache_state) == (COMMIT, CacheState.COMPLETE)
    assert not errors_of(run)


def test_packages_that_are_missing_or_of_the_wrong_version_are_named(
    make_run: MakeRun, tiny_causal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = {**environment.installed_versions(), "transformers": "4.40.0", "peft": "1.0"}
    del versions["accelerate"]
    monkeypatch.setattr(preflight.environment, "installed_versions", lambda: versions)
    report = check_run(make_run(tiny_causal))
    messages = {finding.code: finding.message for finding in report.findings}
    assert "accelerate" in messages["DEPENDENCY_MISSING"]
    assert "4.40.0" in messages["DEPENDENCY_TOO_OLD"]
    assert ">=5.20" in messages["DEPENDENCY_TOO_OLD"]
    assert "peft" in messages["DEPENDENCY_TOO_NEW"]


def test_a_package_that_cannot_be_imported_is_a_finding_and_no_crash(
    make_run: MakeRun, tiny_causal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("peft_trainer.rehearsal", raising=False)
    monkeypatch.setitem(sys.modules, "peft_trainer.rehearsal", None)
    assert errors_of(make_run(tiny_causal)) == ["DEPENDENCY_MISSING"]


def test_little_memory_is_a_warning(make_run: MakeRun, tiny_causal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: 1000)
    assert codes_of(make_run(tiny_causal))["MEMORY_LOW"] is Severity.WARNING


def test_a_directory_that_cannot_be_written_is_an_error(
    make_run: MakeRun, tiny_causal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(preflight.tempfile, "TemporaryFile", refuse)
    assert errors_of(make_run(tiny_causal)) == ["RUN_DIRECTORY_UNWRITABLE"]
