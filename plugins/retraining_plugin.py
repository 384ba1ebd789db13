"""The one file of this folder that Airflow's plugin scanner executes.

When the distribution is installed too, its entry point has registered the plugin already, and this file defines
nothing: Airflow would show the second registration as an import error.
"""

from __future__ import annotations

from importlib.metadata import entry_points

if not any(point.name == "peft_retraining" for point in entry_points(group="airflow.plugins")):
    from peft_retraining.airflow_plugin import PeftRetrainingPlugin  # noqa: F401 - Airflow looks for it here
