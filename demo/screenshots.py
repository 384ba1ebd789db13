"""Takes the pictures of the docs from the last demo's run, in a real browser.

Needs Debian's ``chromium``; run it with ``make screenshots`` after ``make demo``.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from urllib.parse import quote

from playwright.sync_api import Page, sync_playwright

from demo import settings
from demo.local_airflow import LocalAirflow

IMAGES = settings.REPOSITORY / "docs" / "images"
BROWSER_OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def main() -> int:
    """Start the demo's Airflow, photograph its last run, stop."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    with LocalAirflow(
        settings.AIRFLOW_HOME,
        dags_folder=settings.REPOSITORY / "dags",
        plugins_folder=settings.REPOSITORY / "plugins",
        environment=settings.demo_environment(settings.AIRFLOW_HOME, runner="process"),
        wait_for_dags=[settings.DAG_ID],
    ) as airflow:
        run = airflow.rest.dag_runs(settings.DAG_ID)[-1]
        body = {"username": airflow.username, "password": airflow.password}
        token = airflow.rest.request("POST", "/auth/token", body=body).json()["access_token"]
        with tempfile.TemporaryDirectory() as profile, sync_playwright() as playwright:
            browser = playwright.chromium.launch_persistent_context(
                profile,
                executable_path=shutil.which("chromium"),
                args=BROWSER_OPTIONS,
                viewport={"width": 1360, "height": 800},
            )
            browser.add_cookies([{"name": "_token", "value": token, "url": airflow.url}])
            page = browser.new_page()
            run_url = f"{airflow.url}/dags/{settings.DAG_ID}/runs/{quote(run['dag_run_id'], safe='')}"
            photograph(page, run_url, "publish_adapter", IMAGES / "run-in-airflow.png")
            browser.close()
    return 0


def photograph(page: Page, url: str, text: str, file: Path) -> None:
    """Open a page, wait until it shows a text, and save what it looks like."""
    page.goto(url)
    page.get_by_text(text).first.wait_for(timeout=60_000)
    page.wait_for_load_state("networkidle")
    page.screenshot(path=file)
    print(file.relative_to(settings.REPOSITORY))


if __name__ == "__main__":
    sys.exit(main())
