"""A real PostgreSQL of the tests' own: in a temporary folder, on a free port, stopped at the end.

``postgres`` is the server (one a session), ``postgres_url`` a fresh and empty database on it (one a test),
``database_url`` the same for SQLite and for PostgreSQL, one after the other.
"""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

import pytest

BINARIES = (*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True), *map(Path, os.get_exec_path()))
MISSING = "PostgreSQL is missing; `make test` installs it (scripts/system.sh postgres)"
READY_SECONDS = 30
DIALECTS = ("sqlite", "postgresql")
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "300",
    "shared_buffers": "64MB",
    "log_min_messages": "warning",
    "deadlock_timeout": "200ms",
}


class Postgres:
    """One server. ``durable``: it waits for the disk at each commit, as in production; leave it off in tests."""

    def __init__(self, folder: Path, *, durable: bool = False) -> None:
        self._bin = _binaries()
        self._folder, self._durable = folder, durable
        self._user = "postgres" if os.getuid() == 0 else None
        self._names = count(1)
        self._process: subprocess.Popen[bytes] | None = None
        self.port = _free_port()
        folder.mkdir(exist_ok=True)
        if self._user is not None:  # it refuses to run as root
            entry = pwd.getpwnam(self._user)
            os.chown(folder, entry.pw_uid, entry.pw_gid)
        self._run(
            "initdb", "--no-sync", "-A", "trust", "-U", "horde", "-E", "UTF8", "--locale=C.UTF-8", "-D", self.data
        )

    @property
    def data(self) -> str:
        return str(self._folder / "data")

    @property
    def socket_folder(self) -> str:
        return str(self._folder)

    def url(self, name: str, port: int | None = None) -> str:
        """The URL of a database. ``port``: of a proxy before the server."""
        return f"postgresql://horde@127.0.0.1:{port or self.port}/{name}"

    def start(self) -> None:
        """Start and wait until it answers; also after :meth:`stop` and :meth:`kill`."""
        settings = _SETTINGS | {"port": str(self.port), "unix_socket_directories": str(self._folder)}
        settings |= {} if self._durable else {"fsync": "off"}
        options = [f"-c{name}={value}" for name, value in settings.items()]
        # it ends with the tests even when they are killed
        command = self._as_user("postgres", "-D", self.data, *options, wrapper=["setpriv", "--pdeathsig=QUIT"])
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        end = time.monotonic() + READY_SECONDS
        while self._run("pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port), check=False) != 0:
            assert self._process.poll() is None, (self._folder / "log").read_text()[-3000:]
            assert time.monotonic() < end, "PostgreSQL does not answer"
            time.sleep(0.02)

    def stop(self) -> None:
        """Stop in order; its clients are cut off."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """Stop at once, as a crash does; the next start recovers what was committed."""
        self._end(signal.SIGQUIT)

    def pause(self) -> None:
        """Every one of its processes stands still, as on a machine that hangs."""
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal_all(signal.SIGCONT)

    def fresh(self, template: str = "template0") -> str:
        """The name of a new database, a copy of ``template`` (which nobody may be connected to)."""
        name = f"test_{next(self._names)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
        return name

    def drop(self, name: str) -> None:
        """Remove a database; whoever is connected is cut off."""
        self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def execute(self, statement: str, name: str = "postgres") -> str:
        """Run one statement; its rows as text, columns parted by ``|``."""
        command = [
            str(self._bin / "psql"),
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-c",
            statement,
            self.url(name),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(how)
            process.wait(30)

    def _signal_all(self, number: signal.Signals) -> None:
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        for pid in (self._process.pid, *map(int, children)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _run(self, program: str, *arguments: str, check: bool = True) -> int:
        done = subprocess.run(self._as_user(program, *arguments), capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done.returncode

    def _as_user(self, program: str, *arguments: str, wrapper: Sequence[str] = ()) -> list[str]:
        user = self._user
        switch = [] if user is None else ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
        return [*switch, *wrapper, str(self._bin / program), *arguments]


@contextlib.contextmanager
def running_postgres(*, durable: bool = False) -> Iterator[Postgres]:
    """A server that lives as long as the block."""
    folder = Path(tempfile.mkdtemp(prefix="horde-postgres-"))
    server = Postgres(folder, durable=durable)
    try:
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """The server. A test that stops, kills or pauses one starts its own instead (:func:`running_postgres`)."""
    with running_postgres() as server:
        yield server


@pytest.fixture
def postgres_url(postgres: Postgres) -> Iterator[str]:
    """A database of the test's own."""
    name = postgres.fresh()
    yield postgres.url(name)
    postgres.drop(name)


@pytest.fixture(params=DIALECTS)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind: the test runs twice."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/test.db"
    return str(request.getfixturevalue("postgres_url"))


def _binaries() -> Path:
    for folder in BINARIES:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    raise AssertionError(MISSING)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
