"""The Airflow plugin; found by the entry point of the distribution, or by ``plugins/retraining_plugin.py``."""

from __future__ import annotations

from typing import Any, Final

from airflow.plugins_manager import AirflowPlugin

PLUGIN_NAME: Final = "peft_retraining"
URL_PREFIX: Final = "/peft-retraining"


class ApplicationOnDemand:
    """An ASGI application that is built at its first request.

    Every Airflow process imports plugins, and only the api-server answers requests.
    """

    def __init__(self) -> None:
        self._application: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request, as ASGI has it."""
        if self._application is None:
            from peft_retraining.admin_page.app import create_app  # noqa: PLC0415 - see above

            self._application = create_app()
        await self._application(scope, receive, send)


class PeftRetrainingPlugin(AirflowPlugin):
    """Adds the runs of all retraining DAGs to Airflow's api-server."""

    name = PLUGIN_NAME
    fastapi_apps = [{"app": ApplicationOnDemand(), "url_prefix": URL_PREFIX, "name": "PEFT retraining"}]  # noqa: RUF012
