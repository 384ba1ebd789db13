"""The one place that reads configuration: Airflow's ``[peft_retraining]`` section becomes ``Settings``."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

from airflow.sdk.configuration import conf

from peft_retraining.settings import HOME_PLACEHOLDER, SECTION, Settings, make_settings


def airflow_home() -> Path:
    """Return the Airflow home, as Airflow itself finds it."""
    return Path(os.environ.get("AIRFLOW_HOME", "~/airflow")).expanduser().absolute()


def load_settings(**overrides: Any) -> Settings:
    """Read the settings of a DAG: what it says itself, else the Airflow configuration, else the defaults.

    Args:
        overrides: Settings by name that this DAG sets for itself.

    Raises:
        SettingsInvalid: Names or values that cannot be used; all of them.
    """
    configured = {}
    for item in dataclasses.fields(Settings):
        text = conf.get(SECTION, item.name, fallback=None)
        if text is not None:
            configured[item.name] = text
    settings = make_settings(configured, **overrides)
    directories = {
        name: getattr(settings, name).replace(HOME_PLACEHOLDER, str(airflow_home()))
        for name in ("runs_directory", "adapters_directory", "model_cache_directory")
    }
    return dataclasses.replace(settings, **directories)


def executors() -> list[str]:
    """Return the executors that Airflow may run tasks with, by their class names."""
    configured = conf.get("core", "executor", fallback="LocalExecutor")
    return [part.split(":")[-1].rsplit(".", 1)[-1].strip() for part in configured.split(",") if part.strip()]
