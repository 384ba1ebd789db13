"""Everything that can be set, as one frozen value.

One table, the fields of ``Settings``, says each setting's name, type, default, bounds and meaning. The Airflow
configuration section, the trigger form, the validation and the reference in the docs are all made from it.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import types
import typing
import zoneinfo
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from typing import Any

from peft_retraining.errors import UserError
from training_contract.run_spec import GpuUse

SECTION = "peft_retraining"
"""Section of the Airflow configuration; ``AIRFLOW__PEFT_RETRAINING__MIN_NEW_ROWS`` sets ``min_new_rows``."""

SUPPORTED_PEFT_TYPES = ("LORA", "PROMPT_TUNING")
"""What the trigger form offers; the trainer environment has the last word, in preflight."""

HOME_PLACEHOLDER = "{AIRFLOW_HOME}"


class Runner(StrEnum):
    """What the trainer runs in."""

    DOCKER = "docker"
    PROCESS = "process"


class CompletionFormat(StrEnum):
    """How the completion column holds the answer to learn."""

    ASK_AI_SUGGESTIONS = "ask_ai_suggestions"
    TEXT = "text"


class SettingsInvalid(UserError):
    """Settings cannot be used as they are; all problems are told at once."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = tuple(problems)
        super().__init__(
            "settings are not valid: " + "; ".join(problems),
            failure_code="settings_invalid",
            remedy=f"Correct them in the DAG file, in [{SECTION}] of airflow.cfg, or in the trigger form.",
        )


def _setting(default: Any, description: str, *, param: bool = False, **schema: Any) -> Any:
    """Declare a setting: default, meaning, JSON-schema bounds, and whether a single run may override it."""
    metadata = {"description": description, "param": param, "schema": schema}
    return (
        field(default_factory=dict, metadata=metadata) if default == {} else field(default=default, metadata=metadata)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of one retraining DAG."""

    dag_id: str = _setting("nightly_peft_retraining", "Id of the DAG.", pattern=r"^[A-Za-z0-9_.-]{1,200}$")
    adapter_name: str = _setting(
        "assistant",
        "Name the adapter is published under; two DAGs with one name would replace each other's adapters.",
        pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$",
    )
    schedule: str = _setting("0 2 * * *", "Cron expression; each run covers the interval that ends at its time.")
    timezone: str = _setting("UTC", "Time zone of the cron expression.", format="time zone")
    start_date: str = _setting("2026-01-01", "First day of the schedule; a backfill may start earlier.", format="date")
    pool: str = _setting(
        "default_pool", "Airflow pool of the training task; it has to exist, a task in an unknown pool waits for ever."
    )
    retries: int = _setting(2, "Retries of a task whose failure may pass; what cannot pass is not retried.", minimum=0)
    retry_delay_seconds: float = _setting(300.0, "Pause before the first retry; doubles with each.", minimum=0)

    labelled_data_conn_id: str = _setting(
        "labelled_data", "Airflow connection of the database with the labelled conversations."
    )
    labelled_table: str = _setting("ask_ai_queries", "Table (or schema.table) with the labelled conversations.")
    prompt_column: str = _setting("original_query", "Column with what the user asked.")
    completion_column: str = _setting("suggestions", "Column with the answer to learn.")
    created_at_column: str = _setting("created_at", "Column with the time a row was created; without a zone it is UTC.")
    completion_format: CompletionFormat = _setting(
        CompletionFormat.ASK_AI_SUGGESTIONS,
        "text: the column is the answer; ask_ai_suggestions: a JSON list of {description, confidence}, "
        "of which the one with the highest confidence is the answer.",
    )
    min_new_rows: int = _setting(
        50, "New labelled rows that make a retraining worth while; fewer skip the run.", param=True, minimum=1
    )
    max_train_rows: int = _setting(
        2000, "Newest usable rows that are frozen for a run, held-out ones included.", param=True, minimum=2
    )
    heldout_fraction: float = _setting(
        0.1, "Share of the prompts that judge the adapter and are never trained on.", minimum=0.01, maximum=0.5
    )
    max_refused_fraction: float = _setting(
        0.5,
        "Share of unusable rows from which on the data is taken for broken and the run fails.",
        minimum=0,
        maximum=1,
    )
    data_wait_seconds: float = _setting(
        3600.0, "How long a scheduled run waits for late rows before it is skipped; other runs look once.", minimum=0
    )
    data_poll_interval_seconds: float = _setting(300.0, "Pause between two looks at the data.", minimum=1)

    runs_directory: str = _setting(
        f"{HOME_PLACEHOLDER}/peft_retraining/runs", "Run directories, on storage that worker and trainer both see."
    )
    adapters_directory: str = _setting(
        f"{HOME_PLACEHOLDER}/peft_retraining/adapters", "Published adapters, by name and version."
    )
    model_cache_directory: str = _setting(
        f"{HOME_PLACEHOLDER}/peft_retraining/model_cache", "Hub cache with the base models."
    )
    run_store_conn_id: str = _setting(
        "peft_retraining_db",
        "Airflow connection of the record of runs; when it is not defined, a SQLite file in the Airflow home.",
    )

    runner: Runner = _setting(
        Runner.DOCKER, "docker: the trainer image, run by the engine; process: a trainer environment on the worker."
    )
    trainer_image: str = _setting(
        "airflow-peft-retraining/trainer:0.1.0", "For the docker runner: the trainer image, by tag or by digest."
    )
    trainer_command: str = _setting(
        "",
        "For the process runner: how the trainer is called on the worker, "
        "for example `/opt/trainer/bin/python -m peft_trainer`.",
    )
    train_timeout_seconds: float = _setting(6 * 3600.0, "Longest training; after that it is stopped.", minimum=1)
    gpu: GpuUse = _setting(GpuUse.IF_AVAILABLE, "Whether the trainer uses a GPU.")
    cpu_threads: int | None = _setting(None, "Threads for computing; empty: as many as the process may use.", minimum=1)

    base_model_name_or_path: str = _setting(
        "google/flan-t5-small", "Base model: a hub id, or a directory as the trainer sees it.", param=True, minLength=1
    )
    base_model_revision: str | None = _setting(
        None, "Commit, tag or branch of the base model on the hub; empty: what the cache has.", param=True
    )
    allow_model_download: bool = _setting(
        False, "Whether a run may download a base model that the cache lacks.", param=True
    )
    peft_type: str = _setting("LORA", "Kind of adapter, as PEFT names it.", param=True)
    peft_settings: Mapping[str, Any] = _setting({}, "Fields of that kind's PEFT config, by PEFT's names.", param=True)
    num_train_epochs: float = _setting(3.0, "Passes over the training rows.", param=True, exclusiveMinimum=0)
    max_steps: int | None = _setting(None, "Optimizer steps at most; empty: as the epochs say.", param=True, minimum=1)
    learning_rate: float = _setting(1e-3, "Peak learning rate.", param=True, exclusiveMinimum=0)
    lr_scheduler_type: str = _setting("cosine", "Learning rate schedule, as transformers names it.", param=True)
    warmup_ratio: float = _setting(
        0.03, "Share of the steps during which the learning rate rises.", param=True, minimum=0, maximum=0.99
    )
    per_device_train_batch_size: int = _setting(4, "Rows a micro-batch.", param=True, minimum=1)
    gradient_accumulation_steps: int = _setting(1, "Micro-batches an optimizer step.", param=True, minimum=1)
    max_length: int = _setting(
        512,
        "Longest row in tokens, prompt and completion; longer ones are left out and counted.",
        param=True,
        minimum=8,
    )
    save_steps: int | None = _setting(
        None, "Optimizer steps between two checkpoints; empty: about ten checkpoints a run.", minimum=1
    )
    seed: int = _setting(42, "Seed of everything random.", param=True, minimum=0, maximum=2**32 - 1)

    def with_params(self, params: Mapping[str, Any]) -> Settings:
        """Apply what a single run overrides in the trigger form.

        Args:
            params: Airflow's params; names that are not settings of a run are somebody else's and ignored.

        Raises:
            SettingsInvalid: A value cannot be used.
        """
        overrides = {name: params[name] for name in param_names() if name in params}
        return make_settings({}, base=self, **overrides)


def param_names() -> list[str]:
    """Return the settings that a single run may override."""
    return [item.name for item in dataclasses.fields(Settings) if item.metadata["param"]]


def param_schema(name: str, default: Any) -> dict[str, Any]:
    """Return the JSON schema of a setting for Airflow's trigger form.

    Args:
        name: A name out of ``param_names()``.
        default: The value that the DAG has; for an enumeration it is always one of the choices, so that a wrong setting
            shows in preflight, on the run's row, and not as a DAG that is missing.
    """
    item = next(item for item in dataclasses.fields(Settings) if item.name == name)
    kind, optional = _kind_of(name)
    json_type = {bool: "boolean", int: "integer", float: "number"}.get(kind, "object" if kind is Mapping else "string")
    schema = dict(item.metadata["schema"])
    if name == "peft_type":
        schema["enum"] = sorted({*SUPPORTED_PEFT_TYPES, default})
    return {
        "type": ["null", json_type] if optional else json_type,
        "description": item.metadata["description"],
        **schema,
    }


def make_settings(configured: Mapping[str, str], *, base: Settings | None = None, **overrides: Any) -> Settings:
    """Build settings from configuration text and from values, values first.

    Args:
        configured: Text by setting name, as a configuration file has it; an empty text is "not set".
        base: What everything else is taken from.
        overrides: Values by setting name, of the setting's own type or as text.

    Raises:
        SettingsInvalid: Unknown names or values that cannot be used; all of them.
    """
    known = {item.name for item in dataclasses.fields(Settings)}
    problems = [f"{name} is not a setting" for name in sorted((set(configured) | set(overrides)) - known)]
    values: dict[str, Any] = {}
    for item in dataclasses.fields(Settings):
        if item.name in overrides:
            given = overrides[item.name]
        elif configured.get(item.name):
            given = configured[item.name]
        else:
            continue
        try:
            values[item.name] = _checked(item.name, given, item.metadata["schema"])
        except (ValueError, TypeError) as error:
            problems.append(f"{item.name} is {_shortened(given)}; {error}")
    if problems:
        raise SettingsInvalid(problems)
    return dataclasses.replace(base or Settings(), **values)


def _kind_of(name: str) -> tuple[Any, bool]:
    hint = typing.get_type_hints(Settings)[name]
    if typing.get_origin(hint) is types.UnionType:
        return typing.get_args(hint)[0], True
    return (Mapping if typing.get_origin(hint) is Mapping else hint), False


def _checked(name: str, given: Any, schema: Mapping[str, Any]) -> Any:
    kind, optional = _kind_of(name)
    if given is None or (optional and given == ""):
        if optional:
            return None
        raise ValueError("a value is needed")
    value = _converted(kind, given)
    bounds: dict[str, tuple[Callable[[Any], bool], str]] = {
        "minimum": (lambda limit: value >= limit, "at least"),
        "exclusiveMinimum": (lambda limit: value > limit, "more than"),
        "maximum": (lambda limit: value <= limit, "at most"),
        "minLength": (lambda limit: len(value) >= limit, "characters at least"),
        "pattern": (lambda limit: re.fullmatch(limit.strip("^$"), value) is not None, "text that matches"),
        "format": (lambda limit: _FORMATS[limit](value), "a"),
    }
    for rule, limit in schema.items():
        holds, words = bounds[rule]
        if not holds(limit):
            raise ValueError(f"expected {words} {limit}")
    return value


def _is_time_zone(text: str) -> bool:
    try:
        zoneinfo.ZoneInfo(text)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        return False
    return True


def _is_date(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


_FORMATS: Mapping[str, Callable[[str], bool]] = {"time zone": _is_time_zone, "date": _is_date}


def _converted(kind: Any, given: Any) -> Any:
    if kind is Mapping:
        parsed = json.loads(given) if isinstance(given, str) else given
        if not isinstance(parsed, Mapping):
            raise ValueError("expected a JSON object")
        return dict(parsed)
    if kind is bool:
        choices = {
            "true": True,
            "1": True,
            "yes": True,
            "on": True,
            "false": False,
            "0": False,
            "no": False,
            "off": False,
        }
        answer = given if isinstance(given, bool) else choices.get(str(given).strip().lower())
        if answer is None:
            raise ValueError("expected true or false")
        return answer
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        try:
            return kind(given)
        except ValueError:
            raise ValueError("allowed: " + ", ".join(kind)) from None
    if kind is str:
        if not isinstance(given, str):
            raise ValueError("expected text")
        return given
    return _number(kind, given)


def _number(kind: type[int] | type[float], given: Any) -> int | float:
    if isinstance(given, bool):
        raise ValueError("expected a number")
    try:
        number = kind(given)
    except (ValueError, TypeError, OverflowError):
        raise ValueError("expected a whole number" if kind is int else "expected a number") from None
    if not math.isfinite(number) or (kind is int and isinstance(given, float) and number != given):
        raise ValueError("expected a whole number" if kind is int else "expected a finite number")
    return number


def _shortened(value: Any, limit: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
