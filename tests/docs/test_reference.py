"""The reference says what the code says: all of it, and nothing else."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from peft_retraining.errors import FailureClass
from peft_retraining.identity import AttemptKey
from peft_retraining.outcome.signatures import built_in_signatures
from peft_retraining.preflight.findings import FindingCode
from peft_retraining.run_store.presentation import run_as_dict
from peft_retraining.run_store.records import AttemptFacts, Failure, RunFacts, TrainingAttempt, TrainingRun
from peft_retraining.run_store.states import RunState
from peft_retraining.run_store.tables import training_attempts, training_runs
from peft_retraining.settings import Settings
from peft_retraining.snapshots.judging import RefusalReason
from peft_trainer import environment
from tests.docs.conftest import REFERENCE, REPOSITORY, constants_in, parsed
from training_contract import events
from training_contract.exit_codes import ExitCode
from training_contract.locations import AttemptDirectory, RunDirectory

AIRFLOW_SIDE = REPOSITORY / "plugins" / "peft_retraining"
TRAINER = REPOSITORY / "trainer_image" / "peft_trainer"
NOW = datetime(2026, 11, 23, tzinfo=UTC)

# Put together at run time, so that no search of the source finds them.
COMPOSED_FAILURE_CODES = {
    "snapshot_missing",
    "preflight_report_missing",
    ExitCode.DISK_FULL.failure_code,
}


def page(name: str) -> str:
    return (REFERENCE / name).read_text(encoding="utf-8")


def first_cells(text: str) -> list[str]:
    """The codes in the first column of a page's tables."""
    return re.findall(r"^\| `([^`]+)`", text, re.MULTILINE)


@pytest.mark.parametrize("path", sorted(REFERENCE.glob("*.md")), ids=lambda path: path.name)
def test_generated_parts_are_up_to_date(path: Path, generator: ModuleType) -> None:
    text = path.read_text(encoding="utf-8")

    assert text == generator.refreshed(text), "run: PYTHONPATH=plugins .venv/bin/python docs/generate_reference.py"


def test_every_part_that_is_generated_is_on_a_page(generator: ModuleType) -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in REFERENCE.glob("*.md"))

    assert {name for name in generator.BLOCKS if f"<!-- generated: {name} -->" not in text} == set()


def test_the_settings_are_documented_and_no_others() -> None:
    settings = {item.name for item in dataclasses.fields(Settings)}

    assert settings <= set(first_cells(page("settings.md"))) <= settings | {"LORA", "PROMPT_TUNING"}


def test_what_has_no_setting_is_a_field_of_the_spec_that_no_setting_names() -> None:
    _, _, section = page("settings.md").partition("## What has no setting")
    named = set(re.findall(r"`([a-z_]+)`", section))

    assert named <= set(first_cells(page("run-spec.md")))
    assert named.isdisjoint(item.name for item in dataclasses.fields(Settings))


def test_the_exit_codes_are_documented_and_no_others() -> None:
    documented = re.findall(r"^\| (\d+) \| `(\w+)`", page("exit-codes.md"), re.MULTILINE)

    assert documented == [(str(int(code)), code.failure_code) for code in ExitCode]


def test_the_signatures_are_documented_in_their_order() -> None:
    documented = re.findall(r"^\| \d+ \| `(\w+)`", page("failure-signatures.md"), re.MULTILINE)

    assert documented == [row.name for row in built_in_signatures()]


def test_the_refusal_reasons_are_documented_and_no_others() -> None:
    assert first_cells(page("refusal-reasons.md")) == list(RefusalReason)


def test_the_preflight_codes_are_documented_and_no_others() -> None:
    documented = first_cells(page("preflight-codes.md"))

    assert set(documented) == {*FindingCode, *runner_codes(), *trainer_codes()}


def runner_codes() -> set[str]:
    """Failures of the runner that preflight turns into findings: those that a retry cannot help."""
    files = [AIRFLOW_SIDE / "container" / name for name in ("choice.py", "trainer_command.py")]
    return {
        code.upper()
        for module in parsed(*files)
        for call in calls(module, {"PlatformError", "UserError"})
        for code in failure_codes(call)
    }


def trainer_codes() -> set[str]:
    """Codes of the trainer's findings, read from its source: torch is not installed here."""
    names = {"error_finding", "warning_finding", "info_finding"}
    codes: set[str] = set()
    for module in parsed(TRAINER / "preflight.py", TRAINER / "rehearsal.py"):
        for function in (node for node in ast.walk(module) if isinstance(node, ast.FunctionDef)):
            variables = {
                target.id: node.value
                for node in ast.walk(function)
                if isinstance(node, ast.Assign)
                for target in node.targets
                if isinstance(target, ast.Name)
            }
            for call in calls(function, names):
                code = call.args[0]
                if isinstance(code, ast.Name):
                    code = variables[code.id]
                found = set(constants_in(code)) or set(dependency_codes(code))
                assert found, f"this test does not understand the code in line {code.lineno}"
                codes |= found
    return codes


def dependency_codes(code: ast.AST) -> Iterator[str]:
    """The codes made of what can be wrong with a version."""
    if isinstance(code, ast.JoinedStr) and list(constants_in(code.values[0])) == ["DEPENDENCY_"]:
        for version in ("0.1", "3"):
            problem = environment.version_problem(version, ">=1,<2")
            assert problem is not None
            yield f"DEPENDENCY_{problem.upper().replace(' ', '_')}"


def calls(tree: ast.AST, names: Iterable[str]) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
            yield node


def failure_codes(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "failure_code":
            yield from constants_in(node.value)


def test_the_failure_codes_outside_training_are_documented_and_no_others() -> None:
    sources = [path for path in AIRFLOW_SIDE.rglob("*.py") if path.name != "verdict.py"]
    raised = {code for module in parsed(*sources) for code in failure_codes(module)}

    assert set(first_cells(page("failure-codes.md"))) == raised | COMPOSED_FAILURE_CODES


def test_the_columns_are_documented_and_no_others() -> None:
    runs, attempts = page("training-runs-table.md").split("## training_attempts")

    assert first_cells(runs) == [column.name for column in training_runs.columns]
    assert first_cells(attempts) == [column.name for column in training_attempts.columns]


def test_every_state_of_a_run_is_documented() -> None:
    assert [state for state in RunState if f"`{state}`" not in page("training-runs-table.md")] == []


def test_the_files_of_a_run_directory_are_documented_and_no_others() -> None:
    run, attempt = RunDirectory(Path()), AttemptDirectory(Path("attempt-N"), 1)
    files = {
        str(getattr(owner, name))
        for owner in (run, attempt)
        for name in dir(type(owner))
        if name.endswith(("_file", "_directory"))
    }
    documented = {name.rstrip("/") for name in first_cells(page("run-directory.md")) if "." in name or "/" in name}

    assert documented == (files - {"snapshot"}) | {"attempt-N/launch.log"} | {"attempt-N/heartbeat"}
    assert "launch.log" in (AIRFLOW_SIDE / "container" / "process_runner.py").read_text(encoding="utf-8")


def test_the_events_are_documented_with_their_fields_and_no_others() -> None:
    text = page("events.md")
    kinds = [events.Started, events.PhaseStarted, events.Progress, events.Warned, events.Finished]

    assert first_cells(text) == [kind.type for kind in kinds]
    for kind in kinds:
        (row,) = re.findall(rf"^\| `{kind.type}` \|(.*)$", text, re.MULTILINE)
        assert [item.name for item in dataclasses.fields(kind) if f"`{item.name}`" not in row] == []
    assert [word for word in (*events.Phase, *events.Ending) if f"`{word}`" not in text] == []


def test_the_fields_that_tasks_return_are_documented_and_no_others() -> None:
    text = page("xcom.md")
    for task, file in {
        "wait_for_labelled_data": "sensors/labelled_data.py",
        "snapshot_training_data": "operators/snapshot_training_data.py",
        "preflight": "operators/preflight.py",
        "train_adapter": "operators/train_adapter.py",
        "publish_adapter": "operators/publish_adapter.py",
    }.items():
        (row,) = re.findall(rf"^\| `{task}` \|(.*)$", text, re.MULTILINE)
        (module,) = parsed(AIRFLOW_SIDE / file)
        documented = set(re.findall(r"`([a-z_]+)`", re.sub(r"\([^)]*\)", "", row)))
        assert documented == set(returned_fields(module)), task


def returned_fields(module: ast.Module) -> Iterator[str]:
    """The keys of the objects that an operator's own methods return."""
    methods = [node for node in ast.walk(module) if isinstance(node, ast.FunctionDef)]
    for method in (node for node in methods if node.name in ("execute", "_decide")):
        variables = {
            target.id: node.value
            for node in ast.walk(method)
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(method):
            if isinstance(node, ast.Return) and isinstance(node.value, ast.Dict):
                for key, value in zip(node.value.keys, node.value.values, strict=True):
                    if key is not None:
                        yield from constants_in(key)
                    elif isinstance(value, ast.Name):
                        yield from (name for part in variables[value.id].keys for name in constants_in(part))


def test_the_report_of_a_failed_training_is_documented() -> None:
    from peft_retraining.callbacks import XCOM_KEY, failure_report
    from peft_retraining.operators.training_failure import TrainingFailed
    from peft_retraining.outcome.evidence import Evidence
    from peft_retraining.outcome.verdict import judge
    from peft_retraining.recording import FailedForGood, failure_of

    evidence = Evidence(exit_code=1)
    error = FailedForGood(TrainingFailed(judge(evidence, None), evidence, AttemptDirectory(Path("attempt-1"), 1)))
    report = failure_report(failure_of(error), error)
    _, _, section = page("xcom.md").partition(f"## {XCOM_KEY}")
    documented = set(re.findall(r"`([a-z_]+)`", "".join(re.findall(r"^\| (`[^|]*) \|", section, re.MULTILINE))))

    assert documented == set(report)
    assert [name for name in report["stdout"] if f"`{name}`" not in section] == []


def test_the_command_line_is_documented_and_nothing_else() -> None:
    from peft_retraining import cli
    from peft_trainer import __main__ as trainer

    ours, trainers = page("command-line.md").split("## python -m peft_trainer")
    for text, parser in ((ours, cli._parser()), (trainers, trainer._parser())):
        commands, options = commands_and_options(parser)
        assert [command for command in commands if f"{command}`" not in text and f"{command} RUN`" not in text] == []
        assert set(re.findall(r"--[a-z][a-z-]+", text)) == options - {"--help"}


def commands_and_options(parser: argparse.ArgumentParser, path: str = "") -> tuple[list[str], set[str]]:
    """Walk a parser; return its commands, as one types them, and all their options."""
    commands: list[str] = []
    options: set[str] = set()
    for action in parser._actions:
        options |= {option for option in action.option_strings if option.startswith("--")}
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                below, more = commands_and_options(command, f"{path} {name}".strip())
                commands += below or [f"{path} {name}".strip()]
                options |= more
    return commands, options


def test_the_json_api_has_the_fields_that_its_page_says() -> None:
    failure = Failure(failure_code="x", failure_reason="x", failure_class=FailureClass.USER, retryable=False)
    attempt = TrainingAttempt(
        key=AttemptKey(dag_id="d", run_id="r", task_id="t"),
        state=RunState.FAILED,
        updated_at=NOW,
        facts=AttemptFacts(failure=failure),
    )
    run = TrainingRun(
        training_run_id="0" * 16,
        dag_id="d",
        run_id="r",
        state=RunState.FAILED,
        first_observed_at=NOW,
        updated_at=NOW,
        facts=RunFacts(),
        failure=failure,
        attempts=(attempt,),
    )

    body: dict[str, Any] = run_as_dict(run)

    columns = {column.name for column in training_runs.columns} - {"run_word", "fact_times"}
    assert set(body) == columns | {"cursor", "attempts"}
    columns = {column.name for column in training_attempts.columns} - {"first_observed_at", "fact_times"}
    assert set(body["attempts"][0]) == columns | {"dag_id", "run_id"}


def test_the_routes_of_the_json_api_are_documented_and_no_others() -> None:
    from peft_retraining.airflow_plugin import URL_PREFIX

    (module,) = parsed(AIRFLOW_SIDE / "admin_page" / "app.py")
    (prefix,) = (ast.literal_eval(call.keywords[0].value) for call in calls(module, {"APIRouter"}))
    routes = {
        f"{route.func.attr.upper()} {ast.literal_eval(route.args[0]).replace(':path', '')}"
        for function in ast.walk(module)
        if isinstance(function, ast.FunctionDef)
        for route in function.decorator_list
        if isinstance(route, ast.Call) and isinstance(route.func, ast.Attribute)
    }

    text = page("json-api.md")
    assert f"`{URL_PREFIX}{prefix}`" in text
    assert set(re.findall(r"^## (GET \S+)$", text, re.MULTILINE)) == routes


def test_the_asset_is_named_as_its_page_says() -> None:
    from peft_retraining.operators.publish_adapter import adapter_alias, adapter_asset

    asset = adapter_asset("assistant")
    for text in (page("asset.md"), (REPOSITORY / "docs" / "how-to" / "serve-the-adapter.md").read_text()):
        assert asset.name in text
        assert asset.uri in text
    assert f"`{adapter_alias('assistant')}`" in page("asset.md")


def test_the_import_rules_list_the_rooms_in_their_order() -> None:
    import tomllib

    contracts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    rows = re.findall(r"^\|[^|]*\| (`.*) \|$", page("import-rules.md"), re.MULTILINE)

    assert [re.findall(r"`(\w+)`", row) for row in rows] == [
        [part.strip().removeprefix("peft_retraining.") for part in layer.split("|")] for layer in layers
    ]
