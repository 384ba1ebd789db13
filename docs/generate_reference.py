"""Writes what the reference pages take from the code.

Comes in: settings, exit codes, failure signatures, refusal reasons, the documents of the contract, the tables. Goes
out: the parts of ``docs/reference/*.md`` between ``<!-- generated: NAME -->`` and ``<!-- /generated -->``; all around
them is written by hand. ``tests/docs`` says when a page is out of date.

Run as: ``PYTHONPATH=plugins .venv/bin/python docs/generate_reference.py``
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import re
import textwrap
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from peft_retraining.identity import AttemptKey
from peft_retraining.outcome.signatures import Signature, built_in_signatures
from peft_retraining.run_store import records
from peft_retraining.run_store.tables import UtcDateTime, training_attempts, training_runs
from peft_retraining.settings import Settings
from peft_retraining.snapshots.judging import RefusalReason
from training_contract import adapter_manifest, failure, preflight_report, process_exit, result, run_spec, snapshot
from training_contract.exit_codes import ExitCode

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = REPOSITORY / "docs" / "reference"

_BLOCK = re.compile(r"<!-- generated: ([a-z-]+) -->\n.*?<!-- /generated -->", re.DOTALL)
_TYPE_NAMES = {str: "text", int: "whole number", float: "number", bool: "true or false"}

_REFUSALS = {
    RefusalReason.CREATED_AT_UNREADABLE: "The time of creation is missing or cannot be read as a time.",
    RefusalReason.PROMPT_MISSING: "The prompt is NULL, empty or white space.",
    RefusalReason.COMPLETION_MISSING: "The completion is NULL, empty or white space; "
    "or the best suggestion has no description, or an empty one.",
    RefusalReason.NOT_TEXT: "The prompt, the completion or the description is not text.",
    RefusalReason.INVALID_UTF8: "The text holds bytes that are not UTF-8, or lone surrogates.",
    RefusalReason.NUL_CHARACTER: "The text holds a NUL character.",
    RefusalReason.TOO_LARGE: "The text is longer than 100,000 characters.",
    RefusalReason.SUGGESTIONS_NOT_JSON: "The completion column is not JSON.",
    RefusalReason.SUGGESTIONS_NOT_A_LIST: "It is JSON and not a list.",
    RefusalReason.SUGGESTIONS_EMPTY: "It is an empty list.",
    RefusalReason.SUGGESTIONS_WITHOUT_CONFIDENCE: "No suggestion has a `confidence` that is a number from 0 to 1.",
    RefusalReason.DUPLICATE: "A newer row has the same prompt and the same answer. "
    "Duplicates do not count against `max_refused_fraction`.",
}

_COLUMN_MEANINGS = {
    "training_run_id": "Id of the run: 16 hexadecimal digits, derived from `dag_id` and `run_id`.",
    "task_id": "As Airflow has it.",
    "map_index": "As Airflow has it; -1 for a task that is not mapped.",
    "try_number": "As Airflow has it; counts on when a task is cleared.",
    "state": "See [states](#states).",
    "started_at": "When it began.",
    "attempt_directory": "Number of the attempt's directory in the run directory.",
    "first_observed_at": "When the row was first heard of.",
    "updated_at": "When the row was last observed.",
    "run_word": "What was said of the run as a whole: state, since when, failure.",
    "fact_times": "When each stored fact was observed; the merge rule needs it.",
    "failed_task_id": "The task that failed.",
    "stdout": "What the trainer printed: `head`, `tail`, `total_bytes`, `omitted_characters`.",
    "stderr": "What the trainer and its libraries logged, likewise.",
}


def refreshed(page: str) -> str:
    """Return a page with its generated parts made anew.

    Args:
        page: Its text.

    Raises:
        KeyError: The page asks for a part that nobody makes.
    """
    return _BLOCK.sub(
        lambda match: f"<!-- generated: {match[1]} -->\n\n{BLOCKS[match[1]]()}\n\n<!-- /generated -->", page
    )


def settings_table() -> str:
    """One row for each setting."""
    defaults = Settings()
    hints = typing.get_type_hints(Settings)
    return _table(
        ("Setting", "Value", "Default", "In the trigger form", "Meaning"),
        (
            (
                f"`{item.name}`",
                _value_words(hints[item.name], item.metadata["schema"]),
                _default_words(getattr(defaults, item.name)),
                "yes" if item.metadata["param"] else "",
                item.metadata["description"],
            )
            for item in dataclasses.fields(Settings)
        ),
    )


def exit_codes_table() -> str:
    """One row for each exit code of the contract."""
    meanings = _member_docstrings(ExitCode)
    rows = []
    for code in ExitCode:
        signature = next((row for row in built_in_signatures() if row.exit_codes == {int(code)}), None)
        rows.append(
            (
                str(int(code)),
                f"`{code.failure_code}`",
                meanings.get(code.name, "The run succeeded, if its result holds too."),
                signature.failure_class.value if signature else "",
                _retried(signature.retryable) if signature else "",
            )
        )
    return _table(("Exit code", "Failure code", "Meaning", "Who acts", "Retried"), rows)


def signatures_table() -> str:
    """One row for each failure signature, in the order in which they are tried."""
    return _table(
        ("#", "Failure code", "Who acts", "Retried", "Fits when", "What to do"),
        (
            (
                str(number),
                f"`{row.name}`",
                row.failure_class.value,
                _retried(row.retryable),
                _conditions(row),
                row.remedy,
            )
            for number, row in enumerate(built_in_signatures(), start=1)
        ),
    )


def refusals_table() -> str:
    """One row for each reason to refuse a row, in the order of the enumeration."""
    return _table(("Reason", "Meaning"), ((f"`{reason}`", _REFUSALS[reason]) for reason in RefusalReason))


def peft_settings_table() -> str:
    """What ``peft_settings`` may hold, read from the trainer's source: torch is not installed here."""
    source = (REPOSITORY / "trainer_image" / "peft_trainer" / "adapter.py").read_text(encoding="utf-8")
    methods = next(
        node.value
        for node in ast.parse(source).body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == "METHODS"
    )
    rows = []
    for peft_type, method in zip(methods.keys, methods.values, strict=True):  # type: ignore[union-attr]  # a literal
        given = {keyword.arg: keyword.value for keyword in method.keywords}
        defaults = ", ".join(
            f"`{ast.literal_eval(name)}` {_source_words(value)}"
            for name, value in zip(given["defaults"].keys, given["defaults"].values, strict=True)
        )
        names = ", ".join(f"`{name}`" for name in ast.literal_eval(given["settings"]))
        rows.append((f"`{ast.literal_eval(peft_type)}`", names, defaults))
    return _table(("peft_type", "Allowed in peft_settings", "Set unless you say otherwise"), rows)


def run_spec_tables() -> str:
    """The fields of ``spec.json``."""
    parts = []
    for title, kind in (
        ("The run", run_spec.RunSpec),
        ("base_model", run_spec.BaseModelSpec),
        ("training", run_spec.TrainingSpec),
        ("data", run_spec.DataSpec),
        ("limits", run_spec.LimitsSpec),
    ):
        parts.append(f"## {title}\n\n{_document_table(kind, with_defaults=True)}")
    return "\n\n".join(parts)


def table_of_columns(table: sa.Table, *sources: type) -> str:
    """The columns of a table, with the meaning that the facts stored in them state.

    Args:
        table: The table.
        sources: Dataclasses whose docstrings have the meanings.
    """
    meanings: dict[str, str] = {}
    for source in sources:
        meanings = {**_attributes(source), **meanings}
    meanings.update(_COLUMN_MEANINGS)
    return _table(
        ("Column", "Type", "Meaning"),
        (
            (f"`{column.name}`", _column_type(column), meanings[column.name].replace("``None``", "NULL"))
            for column in table.columns
        ),
    )


def _document_table(kind: type, *, with_defaults: bool = False) -> str:
    meanings = _attributes(kind)
    hints = typing.get_type_hints(kind)
    header = ("Field", "Type", *(("Default",) if with_defaults else ()), "Meaning")
    rows = []
    for item in dataclasses.fields(kind):
        default = "required" if item.default is dataclasses.MISSING else _default_words(item.default, nothing="null")
        if item.default_factory is not dataclasses.MISSING:
            made = item.default_factory()
            default = "as below" if dataclasses.is_dataclass(made) else "empty"
        meaning = _in_json(meanings.get(item.name, ""))
        rows.append((f"`{item.name}`", _type_words(hints[item.name]), *((default,) if with_defaults else ()), meaning))
    return _table(header, rows)


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    header = list(header)
    lines = [header, ["---"] * len(header), *([_cell(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("``", "`").replace("|", "\\|").split())


def _in_json(text: str) -> str:
    for python, json in (("None", "null"), ("True", "true"), ("False", "false")):
        text = text.replace(f"``{python}``", f"``{json}``")
    return text


def _attributes(kind: type) -> dict[str, str]:
    """Read the section ``Attributes`` of a docstring."""
    _, _, section = inspect.cleandoc(kind.__doc__ or "").partition("Attributes:\n")
    meanings: dict[str, str] = {}
    name = ""
    for line in textwrap.dedent(section).splitlines():
        if not line.strip():
            break
        if line.startswith(" "):
            meanings[name] += f" {line.strip()}"
        else:
            name, _, meaning = line.partition(": ")
            meanings[name] = meaning
    return meanings


def _member_docstrings(kind: type) -> dict[str, str]:
    """Read the texts that stand below the members of an enumeration; Python itself forgets them."""
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0].body  # type: ignore[attr-defined]  # a class
    meanings = {}
    for member, text in itertools.pairwise(body):
        if isinstance(member, ast.Assign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            meanings[typing.cast(ast.Name, member.targets[0]).id] = " ".join(str(text.value.value).split())
    return meanings


def _without_none(hint: Any) -> tuple[Any, bool]:
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return next(option for option in typing.get_args(hint) if option is not types.NoneType), True
    return hint, False


def _type_words(hint: Any) -> str:
    kind, optional = _without_none(hint)
    origin = typing.get_origin(kind)
    if origin is tuple:
        words = f"list of {_type_words(typing.get_args(kind)[0])}"
    elif origin is not None:
        words = "object"
    elif isinstance(kind, type) and issubclass(kind, StrEnum):
        words = " or ".join(f"`{choice}`" for choice in kind)
    elif isinstance(kind, type) and dataclasses.is_dataclass(kind):
        words = f"[{kind.__name__}](#{kind.__name__.lower()})" if kind.__module__ == result.__name__ else "object"
    else:
        words = _TYPE_NAMES.get(kind, "any")
    return f"{words}, or null" if optional else words


def _value_words(hint: Any, schema: Mapping[str, Any]) -> str:
    kind, optional = _without_none(hint)
    words = "JSON object" if typing.get_origin(kind) is not None else _type_words(kind)
    limits = {
        "minimum": "at least {:g}",
        "exclusiveMinimum": "above {:g}",
        "maximum": "at most {:.10g}",
        "pattern": "matching `{}`",
        "format": "a {}",
        "minLength": "not empty",
    }
    bounds = [limits[rule].format(limit) for rule, limit in schema.items()]
    return ", ".join([words, *bounds]) + (", or empty" if optional else "")


def _default_words(default: Any, *, nothing: str = "empty") -> str:
    if default is None:
        return nothing
    if default in ("", {}, ()):
        return "empty"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


def _source_words(value: ast.expr) -> str:
    return f"= `{ast.literal_eval(value)}`" if isinstance(value, ast.Constant) else "= a general text"


def _retried(retryable: bool) -> str:
    return "yes" if retryable else "no"


def _conditions(row: Signature) -> str:
    conditions = []
    for name, values in (
        ("exit code", row.exit_codes),
        ("signal", row.signals),
        ("phase", row.phases),
        ("result", row.results),
    ):
        if values:
            conditions.append(f"{name} {' or '.join(str(value) for value in sorted(values))}")
    if row.oom_killed is not None:
        kills = {"True": "the kernel killed for memory", "False": "no kill for memory was counted"}
        conditions.append(kills.get(str(row.oom_killed), "kills for memory are unknown"))
    if row.stop_requested is not None:
        conditions.append("a stop was asked for" if row.stop_requested else "no stop was asked for")
    if row.unseen:
        conditions.append("nobody saw the end")
    if row.exception_types:
        conditions.append(f"an error line of type {', '.join(f'`{name}`' for name in sorted(row.exception_types))}")
    if row.pattern is not None:
        words = "any error line" if row.pattern.pattern == "." else f"an error line matching `{row.pattern.pattern}`"
        conditions.append(words)
    return "; ".join(conditions)


def _column_type(column: sa.Column[Any]) -> str:
    kind = column.type
    if isinstance(kind, UtcDateTime):
        words = "time, UTC"
    elif isinstance(kind, sa.String):
        words = f"text, at most {kind.length}"
    elif isinstance(kind, sa.Boolean):
        words = "true or false"
    elif isinstance(kind, sa.Integer):
        words = "whole number"
    elif isinstance(kind, sa.JSON):
        words = "JSON"
    else:
        words = "number"
    return f"{words}, key" if column.primary_key else words


BLOCKS: Mapping[str, Callable[[], str]] = {
    "settings": settings_table,
    "peft-settings": peft_settings_table,
    "exit-codes": exit_codes_table,
    "failure-signatures": signatures_table,
    "refusal-reasons": refusals_table,
    "run-spec": run_spec_tables,
    "snapshot": lambda: _document_table(snapshot.SnapshotManifest),
    "preflight-report": lambda: _document_table(preflight_report.TrainerPreflightReport),
    "finding": lambda: _document_table(preflight_report.Finding),
    "result": lambda: _document_table(result.TrainingResult),
    "metrics": lambda: _document_table(result.TrainingMetrics),
    "failure": lambda: _document_table(failure.FailureReport),
    "process-exit": lambda: _document_table(process_exit.ProcessExit),
    "manifest": lambda: _document_table(adapter_manifest.AdapterManifest),
    "training-runs": lambda: table_of_columns(
        training_runs, records.TrainingRun, records.RunFacts, records.Failure, AttemptKey
    ),
    "training-attempts": lambda: table_of_columns(
        training_attempts, records.AttemptFacts, records.Progress, records.Failure, AttemptKey
    ),
}


def main() -> None:
    """Bring every reference page up to date."""
    for path in sorted(PAGES.glob("*.md")):
        page = path.read_text(encoding="utf-8")
        if (wanted := refreshed(page)) != page:
            path.write_text(wanted, encoding="utf-8")


if __name__ == "__main__":
    main()
