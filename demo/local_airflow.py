"""Run a real Airflow on this machine: all its components, LocalExecutor, SQLite, the loopback interface only.

In: a home directory, a folder of DAGs. Out: a running Airflow with a REST client, and nothing left of it afterwards.
Each component runs under a keeper of its own (``keeper.py``), which ends all that the component has started: when it
is told to, and also when the process that uses this module dies, were it by SIGKILL. Next: ``airflow_rest.py``.
"""

from __future__ import annotations

import fcntl
import logging
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from demo.airflow_components import COMPONENTS, EXECUTION_API, Component
from demo.airflow_home import ADMIN, LOOPBACK, airflow_environment, prepare_home
from demo.airflow_readiness import DagImportError, missing_component, missing_dag
from demo.airflow_rest import AirflowRest
from demo.kept_processes import ProcessesLeftError, ask_to_end, kept, kill, wait_for_end

_log = logging.getLogger(__name__)

_MIGRATION = "db-migrate"
_POLL_SECONDS = 0.1
_LOG_TAIL_LINES = 40


_LONGEST_GRACE_SECONDS = max(component.grace_seconds for component in COMPONENTS.values())


class LocalAirflowError(RuntimeError):
    """The local Airflow could not be started or stopped."""


def is_home_in_use(home: Path) -> bool:
    """Return whether an Airflow runs in this home, or is still ending."""
    try:
        with (home / "lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


class LocalAirflow:
    """A real Airflow that lives as long as the ``with`` block, or from ``start`` to ``stop``.

    It ends at the latest with the thread that called ``start``: that is whom the kernel watches.

    Attributes:
        home: All that Airflow keeps; a home that was used before is used again.
        environment: Of every process of this Airflow; set by ``start``.
        password: Of the user ``username``, made at the first start in this home and kept there; set by ``start``.
        rest: A client of the API server, signed in as that user; set by ``start``.
    """

    environment: dict[str, str]
    password: str
    rest: AirflowRest

    def __init__(
        self,
        home: Path,
        *,
        dags_folder: Path,
        plugins_folder: Path | None = None,
        environment: Mapping[str, str] | None = None,
        port: int | None = None,
        python_path: Sequence[Path] = (),
        wait_for_dags: Collection[str] = (),
        start_timeout_seconds: float = 180,
    ) -> None:
        """Describe the Airflow to run; nothing is started yet.

        Args:
            home: A directory of its own; created when missing.
            dags_folder: Folder to scan for DAGs.
            plugins_folder: Folder to scan for plugins; None: none.
            environment: More variables, for instance ``AIRFLOW_CONN_*``; they win over this module's.
            port: Of the API server and its UI; None: a free one.
            python_path: Folders that Airflow's processes import from.
            wait_for_dags: Ids of the DAGs that must have been parsed before ``start`` returns.
            start_timeout_seconds: How long ``start`` may take.
        """
        self.home = home.resolve()
        self._dags_folder = dags_folder.resolve()
        self._plugins_folder = plugins_folder.resolve() if plugins_folder else None
        self._extra_environment = dict(environment or {})
        self._port = port
        self._python_path = [folder.resolve() for folder in python_path]
        self._wait_for_dags = tuple(wait_for_dags)
        self._start_timeout_seconds = start_timeout_seconds
        self._keepers: dict[str, subprocess.Popen[bytes]] = {}
        self._started_at: dict[str, datetime] = {}
        self._execution_port = 0
        self._lock: BinaryIO | None = None

    def __enter__(self) -> Self:
        """Start Airflow."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop Airflow."""
        self.stop()

    @property
    def url(self) -> str:
        """Of the UI and of the API; known from ``start`` on."""
        return self.environment["AIRFLOW__API__BASE_URL"]

    @property
    def username(self) -> str:
        """The only user, who may do everything."""
        return ADMIN

    def start(self) -> None:
        """Bring the database up to date, start all components and wait until they work.

        Raises:
            LocalAirflowError: When the home is in use, the port is taken, a component ends, a wanted DAG cannot be
                imported or the time is up; with the last lines of the log that tells why. Nothing is left running.
        """
        deadline = time.monotonic() + self._start_timeout_seconds
        self._claim_home()
        try:
            self._settle_environment()
            self._migrate(deadline)
            for name in COMPONENTS:
                self._start_keeper(name)
            self._wait_until_nothing(self._missing, deadline)
        except BaseException:
            self.stop()
            raise
        _log.info("Airflow at %s is ready", self.url)

    def stop(self) -> None:
        """End all components and everything they have started; does nothing when none runs.

        Raises:
            LocalAirflowError: When processes are left that even SIGKILL does not end.
        """
        try:
            self._end(last=False)
        finally:
            self._end(last=True)
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def kill_component(self, name: str) -> None:
        """End a component and all it has started with SIGKILL, as when the container it runs in is killed.

        Args:
            name: A key of ``COMPONENTS``.
        """
        kill(name, self._keepers.pop(name))

    def start_component(self, name: str) -> None:
        """Start a component that was killed or has ended, and wait until it works, like all that were not killed.

        Args:
            name: A key of ``COMPONENTS``.

        Raises:
            LocalAirflowError: When it runs already, ends or does not come to work in time.
        """
        previous = self._keepers.get(name)
        if previous is not None and previous.poll() is None:
            raise LocalAirflowError(f"the {name} runs already; kill it first")
        deadline = time.monotonic() + self._start_timeout_seconds
        self._start_keeper(name)
        self._wait_until_nothing(self._missing_component, deadline)

    def ended_components(self) -> dict[str, int]:
        """Return the exit codes of the components that were not asked to end and have ended, by name."""
        return {name: process.returncode for name, process in self._keepers.items() if process.poll() is not None}

    def run_cli(self, *arguments: str, timeout_seconds: float = 120) -> subprocess.CompletedProcess[str]:
        """Run ``airflow`` with these arguments in this Airflow's environment and return how it ended.

        Args:
            *arguments: For instance ``"backfill", "create", "--dag-id", "d"``.
            timeout_seconds: How long it may take.

        Raises:
            subprocess.TimeoutExpired: When it takes longer; it is ended then.
        """
        return subprocess.run(
            _airflow(arguments, grace_seconds=0),
            env=self.environment,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            check=False,
        )

    def log_file(self, name: str) -> Path:
        """Return where a component's output goes; the task logs are beside it.

        Args:
            name: A key of ``COMPONENTS``, or ``db-migrate``.
        """
        return self.home / "logs" / f"{name}.log"

    def _claim_home(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        lock = (self.home / "lock").open("ab")
        try:
            # The keepers hold the lock too: it is free once the last one has ended, whatever became of this process.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise LocalAirflowError(
                f"an Airflow runs in {self.home}, or is still ending; stop it or choose another home"
            ) from None
        self._lock = lock

    def _settle_environment(self) -> None:
        port, self._execution_port = _free_ports(self._port or 0)
        home_secrets = prepare_home(self.home)
        self.password = home_secrets.admin_password
        self.environment = airflow_environment(
            self.home,
            dags_folder=self._dags_folder,
            plugins_folder=self._plugins_folder,
            port=port,
            execution_port=self._execution_port,
            home_secrets=home_secrets,
            python_path=self._python_path,
            extra=self._extra_environment,
        )
        self.rest = AirflowRest(self.url, username=self.username, password=self.password)

    def _migrate(self, deadline: float) -> None:
        process = self._spawn(_MIGRATION, Component(arguments=("db", "migrate")))
        try:
            exit_code = process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise self._failure(_MIGRATION, "did not end in time") from None
        finally:
            kill(_MIGRATION, process)
        if exit_code != 0:
            raise self._failure(_MIGRATION, f"ended with exit code {exit_code}")

    def _start_keeper(self, name: str) -> None:
        self._started_at[name] = datetime.now(UTC)
        self._keepers[name] = self._spawn(name, COMPONENTS[name])

    def _spawn(self, name: str, component: Component) -> subprocess.Popen[bytes]:
        if self._lock is None:
            raise LocalAirflowError("this Airflow does not run; call start first")
        own_port = ("--port", str(self._execution_port)) if name == EXECUTION_API else ()
        with self.log_file(name).open("ab") as log_file:
            return subprocess.Popen(
                _airflow((*component.arguments, *own_port), grace_seconds=component.grace_seconds),
                env=self.environment,
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log_file,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # A Ctrl-C on the terminal is for the caller to deal with.
                pass_fds=(self._lock.fileno(),),
            )

    def _missing_component(self) -> tuple[str, str] | None:
        execution_api_url = self.environment["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"]
        started_at = {name: self._started_at[name] for name in self._keepers}
        return missing_component(self.rest, execution_api_url=execution_api_url, started_at=started_at)

    def _missing(self) -> tuple[str, str] | None:
        parsed_since = self._started_at["dag-processor"]
        return self._missing_component() or missing_dag(self.rest, self._wait_for_dags, since=parsed_since)

    def _wait_until_nothing(self, missing: Callable[[], tuple[str, str] | None], deadline: float) -> None:
        while True:
            for name, exit_code in self.ended_components().items():
                raise self._failure(name, f"ended with exit code {exit_code} while Airflow was starting")
            try:
                lacking = missing()
            except DagImportError as error:
                raise LocalAirflowError(str(error)) from error
            if lacking is None:
                return
            if time.monotonic() > deadline:
                name, reason = lacking
                raise self._failure(name, f"did not work within {self._start_timeout_seconds:g} s ({reason})")
            time.sleep(_POLL_SECONDS)

    def _end(self, *, last: bool) -> None:
        ending = {name: self._keepers[name] for name in self._keepers if COMPONENTS[name].ends_last == last}
        for process in ending.values():
            ask_to_end(process)
        try:
            wait_for_end(ending, seconds=_LONGEST_GRACE_SECONDS + 1)
        except ProcessesLeftError as error:
            raise LocalAirflowError(str(error)) from error
        for name in ending:
            del self._keepers[name]

    def _failure(self, name: str, what: str) -> LocalAirflowError:
        lines = self.log_file(name).read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:]
        return LocalAirflowError("\n".join([f"the {name} {what}; the end of {self.log_file(name)}:", *lines]))


def _airflow(arguments: Sequence[str], *, grace_seconds: float) -> list[str]:
    return kept([sys.executable, "-m", "airflow", *arguments], grace_seconds=grace_seconds)


def _free_ports(wanted: int) -> tuple[int, int]:
    """Return the wanted port, or a free one for 0, and another that is free.

    Raises:
        LocalAirflowError: When the wanted port is taken.
    """
    with socket.socket() as first, socket.socket() as second:
        first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            first.bind((LOOPBACK, wanted))
        except OSError as error:
            raise LocalAirflowError(
                f"port {wanted} of {LOOPBACK} cannot be had ({error.strerror}); stop what uses it or choose another"
            ) from error
        second.bind((LOOPBACK, 0))
        return first.getsockname()[1], second.getsockname()[1]
