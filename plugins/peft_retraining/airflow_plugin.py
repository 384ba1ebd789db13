"""The Airflow plugin; found by the entry point of the distribution, or by ``plugins/retraining_plugin.py``."""

from __future__ import annotations

import os
import sys
from typing import Any

from airflow.plugins_manager import AirflowPlugin

PLUGIN_NAME = "peft_retraining"
URL_PREFIX = "/peft-retraining"


def _apps() -> list[dict[str, Any]]:
    """Build the web application where it is served, and nowhere else: every Airflow process imports plugins."""
    is_api_server = "api-server" in sys.argv or os.environ.get("_AIRFLOW_PROCESS_CONTEXT") == "server"
    if not is_api_server:
        return []
    from peft_retraining.admin_page.app import create_app  # noqa: PLC0415 - see above

    return [{"app": create_app(), "url_prefix": URL_PREFIX, "name": "PEFT retraining"}]


class PeftRetrainingPlugin(AirflowPlugin):
    """Adds the runs of all retraining DAGs to Airflow's api-server."""

    name = PLUGIN_NAME
    fastapi_apps = _apps()
