"""A local Airflow runs DAGs like any other, keeps to the loopback interface, and leaves nothing behind."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from demo import keeper
from demo.airflow_components import COMPONENTS
from demo.airflow_rest import AirflowRest, AirflowRestError, RunNotFinishedError
from demo.local_airflow import LocalAirflow, LocalAirflowError

pytestmark = pytest.mark.integration

REPOSITORY = Path(keeper.__file__).parents[1]
LIMIT_SECONDS = 120
LISTENING = "0A"  # As /proc/net/tcp has it.
DAGS = textwrap.dedent(
    """
    from airflow.providers.standard.operators.empty import EmptyOperator
    from airflow.sdk import DAG, Asset, AssetAlias, Param, conf, task

    ALIAS = AssetAlias("published")

    with DAG("empty", schedule=None):
        EmptyOperator(task_id="nothing")

    with DAG("failing", schedule=None):

        @task
        def fail():
            raise ValueError("the reason why")

        fail() >> EmptyOperator(task_id="never")

    with DAG("talking", schedule=None, params={"number": Param(1, type="integer")}):

        @task(outlets=[ALIAS])
        def talk(*, params, ti, outlet_events):
            print("a line of the log")
            ti.xcom_push(key="json text", value='{"a": 1}')
            if params["number"] > 1:
                outlet_events[ALIAS].add(Asset("lora://adapter"), extra={"number": params["number"]})
            return {"number": params["number"], "setting": conf.get("peft_retraining", "x"), "none": None}

        talk()

    with DAG("sleeping", schedule=None):

        @task
        def sleep():
            import subprocess

            subprocess.run(["sleep", "600"], start_new_session=True)

        sleep()

    with DAG("writing", schedule=None):

        @task
        def write(number, ti=None):
            for key in range(30):
                ti.xcom_push(key=str(key), value=number)

        write.expand(number=[1, 2])
    """
)
DAG_IDS = ("empty", "failing", "talking", "sleeping", "writing")
PLUGIN = textwrap.dedent(
    """
    from airflow.plugins_manager import AirflowPlugin
    from fastapi import FastAPI

    app = FastAPI()

    @app.get("/greeting")
    def greeting():
        return {"greeting": "hello"}

    class Greeting(AirflowPlugin):
        name = "greeting"
        fastapi_apps = [{"app": app, "url_prefix": "/greeting-plugin", "name": "greeting"}]
    """
)
CALLER = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from demo.local_airflow import LocalAirflow
    from demo.up import keep_running

    folder = Path(sys.argv[1])
    airflow = LocalAirflow(folder / "home", dags_folder=folder / "dags", wait_for_dags=["sleeping"])
    sys.exit(keep_running(airflow))
    """
)


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAirflow]:
    """One Airflow with the DAGs above, none of them paused, and a file that cannot be imported."""
    folder = tmp_path_factory.mktemp("airflow")
    for name, files in {
        "dags": {"dags.py": DAGS, "broken.py": "import airflow.DAG"},
        "plugins": {"greeting.py": PLUGIN},
    }.items():
        (folder / name).mkdir()
        for file, text in files.items():
            (folder / name / file).write_text(text)
    airflow = LocalAirflow(
        folder / "home",
        dags_folder=folder / "dags",
        plugins_folder=folder / "plugins",
        environment={"AIRFLOW__PEFT_RETRAINING__X": "from the environment"},
        wait_for_dags=DAG_IDS,
    )
    with airflow:
        for dag_id in DAG_IDS:
            airflow.rest.unpause(dag_id)
        yield airflow


def run(airflow: LocalAirflow, dag_id: str, conf: Mapping[str, object] | None = None) -> tuple[str, str]:
    run_id = airflow.rest.trigger(dag_id, conf=conf)
    return run_id, airflow.rest.wait_for_run(dag_id, run_id, timeout_seconds=LIMIT_SECONDS)


def test_a_run_succeeds(airflow: LocalAirflow) -> None:
    run_id, state = run(airflow, "empty")

    assert state == "success"
    assert airflow.rest.dag_run("empty", run_id)["run_type"] == "manual"
    assert run_id in [one["dag_run_id"] for one in airflow.rest.dag_runs("empty")]


def test_a_run_with_a_logical_date_has_it(airflow: LocalAirflow) -> None:
    run_id = airflow.rest.trigger("empty", logical_date=datetime(2026, 1, 2, 3, tzinfo=UTC))

    assert airflow.rest.dag_run("empty", run_id)["logical_date"] == "2026-01-02T03:00:00Z"


def test_a_failed_task_fails_its_run_and_its_log_says_why(airflow: LocalAirflow) -> None:
    run_id, state = run(airflow, "failing")

    assert state == "failed"
    states = {task["task_id"]: task["state"] for task in airflow.rest.task_instances("failing", run_id)}
    assert states == {"fail": "failed", "never": "upstream_failed"}
    assert "ValueError: the reason why" in airflow.rest.task_log("failing", run_id, "fail")


def test_xcom_log_and_settings_of_a_task_are_its_own(airflow: LocalAirflow) -> None:
    run_id, _ = run(airflow, "talking")

    returned = airflow.rest.xcom("talking", run_id, "talk")
    assert returned == {"number": 1, "setting": "from the environment", "none": None}
    assert airflow.rest.xcom("talking", run_id, "talk", "json text") == '{"a": 1}'
    assert "a line of the log" in airflow.rest.task_log("talking", run_id, "talk")
    with pytest.raises(AirflowRestError, match="not pushed") as raised:
        airflow.rest.xcom("talking", run_id, "talk", "not pushed")
    assert raised.value.status_code == 404


def test_an_asset_event_is_there_only_where_the_task_added_it(airflow: LocalAirflow) -> None:
    without, _ = run(airflow, "talking")
    with_event, _ = run(airflow, "talking", {"number": 2})

    assert airflow.rest.asset_events(source_run_id=without) == []
    events = airflow.rest.asset_events(source_run_id=with_event)
    assert [(event["name"], event["extra"]) for event in events] == [("lora://adapter", {"number": 2})]


def test_conf_that_does_not_fit_is_refused_with_the_servers_words(airflow: LocalAirflow) -> None:
    with pytest.raises(AirflowRestError, match="Invalid input for param number") as raised:
        airflow.rest.trigger("talking", conf={"number": "many"})

    assert raised.value.status_code == 400


def test_a_run_that_goes_on_is_given_up_with_the_states_of_its_tasks(airflow: LocalAirflow) -> None:
    run_id = airflow.rest.trigger("sleeping")
    seen: list[str] = []

    with pytest.raises(RunNotFinishedError, match="sleep"):
        airflow.rest.wait_for_run(
            "sleeping", run_id, timeout_seconds=0, on_poll=lambda dag_run: seen.append(dag_run["state"])
        )
    assert len(seen) == 1


def test_what_cannot_be_imported_is_told_and_the_rest_is_there(airflow: LocalAirflow) -> None:
    assert {dag["dag_id"] for dag in airflow.rest.dags()} == set(DAG_IDS)
    assert [error["filename"] for error in airflow.rest.import_errors()] == ["broken.py"]


def test_a_plugin_serves_its_page(airflow: LocalAirflow) -> None:
    assert "greeting" in [plugin["name"] for plugin in airflow.rest.plugins()]
    assert airflow.rest.plugin_import_errors() == []
    assert airflow.rest.request("GET", "/greeting-plugin/greeting").json() == {"greeting": "hello"}


def test_all_listening_sockets_are_on_the_loopback_interface(airflow: LocalAirflow) -> None:
    inodes = {
        target.removeprefix("socket:[").removesuffix("]")
        for pid in keeper.descendants(os.getpid())
        for target in open_files(pid)
        if target.startswith("socket:[")
    }
    tables = [Path(f"/proc/net/{name}").read_text().splitlines()[1:] for name in ("tcp", "tcp6")]
    rows = [line.split() for table in tables for line in table]
    addresses = [row[1].partition(":")[0] for row in rows if row[3] == LISTENING and row[9] in inodes]

    assert addresses == ["0100007F"] * 2  # 127.0.0.1, for people and for tasks.


def open_files(pid: int) -> list[str]:
    try:
        return [str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:  # It has ended, or closed one, meanwhile.
        return []


def test_a_wrong_password_is_refused(airflow: LocalAirflow) -> None:
    with (
        AirflowRest(airflow.url, username=airflow.username, password="guess") as rest,
        pytest.raises(AirflowRestError) as raised,
    ):
        rest.dags()

    assert raised.value.status_code == 401


def test_the_command_line_is_that_of_the_same_airflow(airflow: LocalAirflow) -> None:
    completed = airflow.run_cli("config", "get-value", "api", "base_url")

    assert (completed.returncode, completed.stdout.strip()) == (0, airflow.url)


def test_users_changes_succeed_while_tasks_write(airflow: LocalAirflow) -> None:
    run_id = airflow.rest.trigger("writing")

    state = airflow.rest.wait_for_run(
        "writing", run_id, timeout_seconds=LIMIT_SECONDS, on_poll=lambda _: airflow.rest.unpause("empty")
    )

    assert state == "success"


def test_a_home_in_use_is_refused(airflow: LocalAirflow) -> None:
    second = LocalAirflow(airflow.home, dags_folder=airflow.home)

    with pytest.raises(LocalAirflowError, match="an Airflow runs in"):
        second.start()
    assert airflow.rest.health()["scheduler"]["status"] == "healthy"


def test_a_taken_port_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(LocalAirflowError, match=f"port {port}"):
            LocalAirflow(tmp_path / "home", dags_folder=tmp_path, port=port).start()


def test_a_component_that_cannot_start_is_named_with_its_log(tmp_path: Path) -> None:
    home = tmp_path / "home"
    broken = {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "sqlite:////no/such/directory/airflow.db"}

    with pytest.raises(
        LocalAirflowError, match=r"the db-migrate ended with exit code 1(.|\n)*unable to open database file"
    ):
        LocalAirflow(home, dags_folder=tmp_path, environment=broken).start()
    assert home not in [Path(f"/proc/{pid}/cwd").readlink() for pid in keeper.descendants(os.getpid())]


def test_a_killed_component_can_be_started_again(airflow: LocalAirflow) -> None:
    airflow.kill_component("scheduler")
    run_id = airflow.rest.trigger("empty")

    airflow.start_component("scheduler")

    assert airflow.rest.wait_for_run("empty", run_id, timeout_seconds=LIMIT_SECONDS) == "success"
    with pytest.raises(LocalAirflowError, match="runs already"):
        airflow.start_component("scheduler")


def test_a_component_that_ended_by_itself_is_noticed(airflow: LocalAirflow) -> None:
    [child] = [
        pid for pid in keeper.descendants(os.getpid()) if "triggerer" in command_of(parent_of(pid)) and leads(pid)
    ]
    os.kill(child, signal.SIGKILL)
    while not (ended := airflow.ended_components()):
        time.sleep(0.05)

    assert ended == {"triggerer": 137}
    airflow.start_component("triggerer")
    assert airflow.ended_components() == {}


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def leads(pid: int) -> bool:
    return os.getsid(pid) == pid and Path(keeper.__file__).name not in command_of(pid)


def command_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")


# Comes last: it stops the Airflow of all the tests above.
def test_stopped_it_leaves_no_process_and_no_port(airflow: LocalAirflow) -> None:
    run_id = airflow.rest.trigger("sleeping")
    wait_until_running(airflow.rest, run_id)
    assert len(keeper.descendants(os.getpid())) > 2 * len(COMPONENTS)

    airflow.stop()

    assert keeper.descendants(os.getpid()) == []
    assert is_free(airflow.url)


def test_killed_or_stopped_its_caller_takes_it_along_and_the_home_can_be_used_again(tmp_path: Path) -> None:
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "dags.py").write_text(DAGS)
    for fate, exit_code in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 0)):
        caller = subprocess.Popen(
            [sys.executable, "-c", CALLER, str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        )
        with caller:
            assert caller.stdout is not None
            line = next(text for text in caller.stdout if "Airflow is up" in text)
            _, _, url, _, username, _, password = line.replace("Airflow is up:", "up x").split()[0:7]
            with AirflowRest(url, username=username, password=password) as rest:
                rest.unpause("sleeping")
                wait_until_running(rest, rest.trigger("sleeping"))
            pids = keeper.descendants(caller.pid)
            caller.send_signal(fate)
            caller.communicate()

        assert caller.returncode == exit_code
        assert len(pids) > 2 * len(COMPONENTS)
        assert all(ends(pid) for pid in pids)
        assert is_free(url)


def wait_until_running(rest: AirflowRest, run_id: str) -> None:
    while rest.task_instance("sleeping", run_id, "sleep")["state"] != "running":
        time.sleep(0.2)


def is_free(url: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(url.rpartition(":")[2]))) != 0


def ends(pid: int) -> bool:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], LIMIT_SECONDS)[0])
    finally:
        os.close(descriptor)
