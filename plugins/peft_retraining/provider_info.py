"""What Airflow's provider manager is told about this package."""

from __future__ import annotations

import dataclasses
from enum import StrEnum
from typing import Any

from peft_retraining import __version__
from peft_retraining.settings import SECTION, Settings


def get_provider_info() -> dict[str, Any]:
    """Return the provider's description, with the configuration section made from the settings."""
    return {
        "package-name": "airflow-peft-retraining",
        "name": "PEFT retraining",
        "description": "Retrains PEFT adapters every night from a table of labelled conversations.",
        "versions": [__version__],
        "config": {
            SECTION: {
                "description": "Settings of the retraining DAGs; a DAG file may set each of them for itself.",
                "options": {item.name: _option(item) for item in dataclasses.fields(Settings)},
            }
        },
    }


def _option(item: dataclasses.Field[Any]) -> dict[str, Any]:
    default = getattr(Settings(), item.name)
    return {
        "description": item.metadata["description"],
        "version_added": "0.1.0",
        "type": "string",
        "example": None,
        "default": _as_text(default),
    }


def _as_text(default: Any) -> str:
    # Airflow expands braces in defaults, so an empty object is spelled as what it means: not set.
    if default is None or default == {}:
        return ""
    return default.value if isinstance(default, StrEnum) else str(default)
