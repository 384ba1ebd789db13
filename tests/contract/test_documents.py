"""Documents of the contract: golden files, tolerant reading, durable writing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from documents_of_the_contract import EXAMPLES
from training_contract import CONTRACT_VERSION
from training_contract.documents import from_mapping, read_document, read_json_object, to_json_text, write_document
from training_contract.durable_files import TEMPORARY_PREFIX
from training_contract.errors import ContractVersionError, DocumentInvalid, DocumentUnreadable
from training_contract.exit_codes import ExitCode
from training_contract.process_exit import ProcessExit
from training_contract.result import TrainingResult
from training_contract.run_spec import RunSpec

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_golden_file_reads_as_its_example(name: str) -> None:
    assert read_document(GOLDEN / f"{name}.json", type(EXAMPLES[name])) == EXAMPLES[name]


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_written_as_its_golden_file(name: str) -> None:
    assert to_json_text(EXAMPLES[name]) == (GOLDEN / f"{name}.json").read_text()


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_reader_ignores_fields_of_a_later_minor_version(name: str) -> None:
    body = {**json.loads((GOLDEN / f"{name}.json").read_text()), "contract_version": "1.99", "invented_later": {"x": 1}}

    assert from_mapping(body, type(EXAMPLES[name]), document=name) == EXAMPLES[name]


@pytest.mark.parametrize("version", ["2.0", "", None, 1, "one"])
def test_another_major_version_is_refused_with_both_named(version: object) -> None:
    body = {**json.loads((GOLDEN / "spec.json").read_text()), "contract_version": version}

    with pytest.raises(ContractVersionError) as caught:
        from_mapping(body, RunSpec, document="spec.json")

    assert caught.value.found == version
    assert CONTRACT_VERSION in str(caught.value)


def test_everything_that_is_wrong_is_told_at_once() -> None:
    body = json.loads((GOLDEN / "spec.json").read_text())
    del body["adapter_name"]
    body["training"]["seed"] = "seven"
    body["limits"]["gpu"] = "sometimes"
    body["peft_settings"] = []
    body["data"]["train_row_count"] = True

    with pytest.raises(DocumentInvalid) as caught:
        from_mapping(body, RunSpec, document="spec.json")

    told = "; ".join(caught.value.problems)
    assert len(caught.value.problems) == 5
    for words in ("adapter_name is missing", "training.seed", "limits.gpu", "peft_settings", "data.train_row_count"):
        assert words in told


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not JSON"),
        (b'{"a": 1', "not JSON"),
        (b"[1, 2]", "not a JSON object"),
        (b'{"a": "\xff"}', "not JSON"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_a_file_that_is_no_document_says_why(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "result.json"
    path.write_bytes(content)

    with pytest.raises(DocumentUnreadable, match=words):
        read_json_object(path)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize(
    ("name", "place"),
    [
        pytest.param("result", "metrics.train_loss", id="a loss"),
        pytest.param("result", "metrics.global_step", id="a whole number"),
        pytest.param("spec", "peft_settings.r", id="a setting of any type"),
        pytest.param("spec", "peft_settings.nested[0].deep", id="a setting inside a setting"),
    ],
)
def test_a_number_that_is_not_finite_is_named(tmp_path: Path, name: str, place: str, number: str) -> None:
    body = json.loads((GOLDEN / f"{name}.json").read_text())
    body.get("peft_settings", {})["nested"] = [{"deep": 1}]
    *path, last = place.replace("[0]", ".0").split(".")
    parent = body
    for key in path:
        parent = parent[int(key) if isinstance(parent, list) else key]
    parent[last] = "HERE"
    file = tmp_path / f"{name}.json"
    file.write_text(json.dumps(body).replace('"HERE"', number))

    with pytest.raises(DocumentInvalid) as caught:
        read_document(file, type(EXAMPLES[name]))

    assert caught.value.problems == (f"{place} is not finite",)


def test_a_whole_number_too_large_for_a_float_is_not_finite() -> None:
    body = json.loads((GOLDEN / "result.json").read_text())
    body["metrics"]["train_loss"] = 10**400

    with pytest.raises(DocumentInvalid, match=r"metrics\.train_loss is not finite"):
        from_mapping(body, TrainingResult, document="result.json")


def test_a_missing_document_is_named(tmp_path: Path) -> None:
    with pytest.raises(DocumentUnreadable, match=r"spec\.json"):
        read_document(tmp_path / "spec.json", RunSpec)


def test_a_number_that_is_not_finite_is_not_written(tmp_path: Path) -> None:
    spec = EXAMPLES["spec"]
    assert isinstance(spec, RunSpec)
    broken = RunSpec(
        training_run_id="x",
        adapter_name="a",
        base_model=spec.base_model,
        peft_type="LORA",
        data=spec.data,
        peft_settings={"lora_alpha": float("inf")},
    )

    with pytest.raises(ValueError, match="not JSON compliant"):
        write_document(tmp_path / "spec.json", broken)

    assert list(tmp_path.iterdir()) == []


def test_writing_replaces_the_whole_document_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "process_exit.json"
    write_document(path, EXAMPLES["failure"])
    write_document(path, EXAMPLES["process_exit"])

    assert read_document(path, ProcessExit) == EXAMPLES["process_exit"]
    assert not list(tmp_path.glob(f"{TEMPORARY_PREFIX}*"))


def test_exit_codes_stay_in_their_range_and_are_never_reused() -> None:
    codes = [code.value for code in ExitCode if code is not ExitCode.SUCCESS]

    assert all(10 <= code <= 79 for code in codes)
    assert len(codes) == len(set(codes))


def test_the_contract_needs_nothing_but_the_standard_library() -> None:
    package = Path(__file__).parents[2] / "plugins"
    modules = sorted(path.stem for path in (package / "training_contract").glob("*.py") if path.stem != "__init__")
    program = (
        f"import sys; sys.path.insert(0, {str(package)!r}); import importlib\n"
        f"for name in {modules!r}: importlib.import_module('training_contract.' + name)\n"
        "foreign = sorted(name for name in sys.modules if '.' not in name and name not in sys.stdlib_module_names"
        " and name not in ('training_contract', '__main__') and not name.startswith('_'))\n"
        "assert not foreign, foreign"
    )

    finished = subprocess.run([sys.executable, "-S", "-E", "-c", program], capture_output=True, text=True, check=False)

    assert finished.returncode == 0, finished.stderr
