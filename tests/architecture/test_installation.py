"""The package as people install it: a wheel, mounted folders, or both; never registered twice."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

REPORT = """
import json, sys
from airflow import plugins_manager
from airflow.providers_manager import ProvidersManager
plugins, errors = plugins_manager._get_plugins()
import peft_retraining
from peft_retraining.configuration import load_settings
from peft_retraining.settings import Settings
print(json.dumps({
    "plugins": [plugin.name for plugin in plugins].count("peft_retraining"),
    "errors": errors,
    "provider": "airflow-peft-retraining" in ProvidersManager().providers,
    "package": peft_retraining.__file__,
    "scanned": sorted(name for name in sys.modules if name.endswith("retraining_plugin")),
    "settings": {name: str(getattr(load_settings(), name)) for name in Settings.__slots__},
    "api": [app["url_prefix"] for plugin in plugins for app in plugin.fastapi_apps],
}))
"""


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", directory, REPOSITORY],
        check=True,
        capture_output=True,
    )
    return next(directory.glob("*.whl"))


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site-packages")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", target, wheel]
    subprocess.run(pip, check=True, capture_output=True)
    return target


def report_of(home: Path, *, installed: Path | None, mounted: bool) -> dict[str, object]:
    """Ask an api-server's Python what it sees."""
    plugins = REPOSITORY / "plugins" if mounted else home / "no-plugins"
    finished = subprocess.run(
        [sys.executable, "-c", REPORT],
        env={
            "PATH": "/usr/bin",
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(plugins),
            "_AIRFLOW_PROCESS_CONTEXT": "server",
            **({"PYTHONPATH": str(installed)} if installed else {}),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    report: dict[str, object] = json.loads(finished.stdout.splitlines()[-1])
    return report


@pytest.mark.parametrize("mounted", [False, True], ids=["wheel", "wheel and mounted folders"])
def test_an_installed_wheel_registers_plugin_and_provider_once(tmp_path: Path, installed: Path, mounted: bool) -> None:
    report = report_of(tmp_path, installed=installed, mounted=mounted)

    assert (report["plugins"], report["errors"], report["provider"]) == (1, {}, True)
    assert str(report["package"]).startswith(str(installed))
    assert report["api"] == ["/peft-retraining"]


def test_mounted_folders_alone_register_the_plugin_once(tmp_path: Path) -> None:
    report = report_of(tmp_path, installed=None, mounted=True)

    assert (report["plugins"], report["errors"], report["provider"]) == (1, {}, False)
    assert str(report["package"]).startswith(str(REPOSITORY / "plugins"))


def test_airflow_scans_one_file_of_the_plugins_folder(tmp_path: Path) -> None:
    # Under a copied folder, since a scan that went too far would execute every module of the packages.
    from airflow._shared.module_loading import find_path_from_directory

    found = list(find_path_from_directory(str(REPOSITORY / "plugins"), ".airflowignore"))

    assert [Path(path).name for path in found if path.endswith(".py")] == ["retraining_plugin.py"]


def test_the_wheel_holds_both_packages_and_their_data_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    roots = {name.split("/")[0] for name in names}

    assert roots == {"peft_retraining", "training_contract", "airflow_peft_retraining-0.1.0.dist-info"}
    assert any(name.startswith("peft_retraining/run_store/migrations/versions/") for name in names)
    assert "peft_retraining/outcome/signatures.toml" in names
    assert not [name for name in names if "__pycache__" in name]
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_command_line_is_installed(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        entry_points = archive.read("airflow_peft_retraining-0.1.0.dist-info/entry_points.txt").decode()

    assert "peft-retraining = peft_retraining.cli:main" in entry_points


def test_settings_are_the_same_however_it_is_installed(tmp_path: Path, installed: Path) -> None:
    as_wheel = report_of(tmp_path, installed=installed, mounted=False)["settings"]
    as_folders = report_of(tmp_path, installed=None, mounted=True)["settings"]

    assert as_wheel == as_folders
    assert isinstance(as_wheel, dict)
    assert as_wheel["runs_directory"] == f"{tmp_path}/peft_retraining/runs"
