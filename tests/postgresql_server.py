"""A real PostgreSQL server for the tests that need one: private, in a temporary directory, reached by a Unix socket."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

_SERVER_USER = "postgres"


def _server_programs() -> Path:
    """Find the directory of initdb and pg_ctl: on the PATH, else where Debian keeps them, newest version first."""
    on_path = shutil.which("pg_ctl")
    if on_path and shutil.which("initdb"):
        return Path(on_path).resolve().parent
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"), key=lambda path: int(path.parts[-3]))
    if not found:
        pytest.fail("PostgreSQL's server programs are not installed; run: apt-get install -y postgresql", pytrace=False)
    return found[-1].parent


def _as_server_user(*command: str | Path, directory: Path) -> None:
    """Run a server program, as another user when we are root: PostgreSQL refuses to run as root."""
    prefix = ["runuser", "-u", _SERVER_USER, "--"] if os.geteuid() == 0 else []
    done = subprocess.run([*prefix, *map(str, command)], cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        log = directory / "server.log"
        pytest.fail(
            f"{Path(command[0]).name} exited with {done.returncode}:\n{done.stdout}\n{done.stderr}\n"
            + (log.read_text() if log.exists() else ""),
            pytrace=False,
        )


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    """SQLAlchemy URL of a private PostgreSQL server; tests that write take ``postgresql_database_url`` instead."""
    programs = _server_programs()
    directory = Path(tempfile.mkdtemp(prefix="pg-"))  # a short path: a socket's name has at most 107 bytes
    try:
        if os.geteuid() == 0:
            owner = pwd.getpwnam(_SERVER_USER)
            os.chown(directory, owner.pw_uid, owner.pw_gid)
        data = directory / "data"
        _as_server_user(
            *(programs / "initdb", "--pgdata", data, "--username", _SERVER_USER, "--auth", "trust"),
            *("--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync"),
            directory=directory,
        )
        options = f"-k {directory} -c listen_addresses= -c fsync=off -c shared_buffers=16MB"
        log = directory / "server.log"
        control = (programs / "pg_ctl", "--pgdata", data, "-w")
        _as_server_user(*control, "-l", log, "-o", options, "start", directory=directory)
        try:
            yield f"postgresql+psycopg2://{_SERVER_USER}@/postgres?host={directory}"
        finally:
            _as_server_user(*control, "-m", "immediate", "stop", directory=directory)
    finally:
        shutil.rmtree(directory)


@pytest.fixture
def postgresql_database_url(postgresql_url: str) -> Iterator[str]:
    """SQLAlchemy URL of an empty PostgreSQL database of the test's own."""
    name = f"test_{uuid4().hex}"
    engine = create_engine(postgresql_url, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        yield make_url(postgresql_url).set(database=name).render_as_string(hide_password=False)
        with engine.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    finally:
        engine.dispose()
