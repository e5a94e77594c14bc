"""Real parts: the engine, a small image, a registry on loopback, and a web server whose answers a test chooses."""

import contextlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.postgres import database_url, postgres, postgres_url  # noqa: F401 - fixtures

# Contract suites live beside the fakes; tests here run them over the real thing.
pytest.register_assert_rewrite("tests.contract.executor.test_executor_runtime")

BUSYBOX_IMAGE = "compute-horde-test/busybox:1"


def docker(*arguments: str, data: bytes | None = None) -> str:
    """The engine's command line."""
    done = subprocess.run(["docker", *arguments], input=data, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().strip()


@pytest.fixture(scope="session")
def engine() -> str:
    """The engine's version. Tests that need one fail where none answers; `make test` starts one."""
    return docker("version", "--format", "{{.Server.Version}}")


def image_tar(busybox: Path) -> bytes:
    """A root file system of one static busybox and its links."""
    names = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for folder in ("bin", "tmp", "etc"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            tar.addfile(entry)
        tar.add(busybox.resolve(), "bin/busybox")
        for name in names:
            if name != "busybox":
                link = tarfile.TarInfo(f"bin/{name}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(link)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def busybox_image(engine: str) -> str:
    """An image with busybox as its shell and tools, made here from this machine's static busybox."""
    found = shutil.which("busybox")
    assert found, "busybox is missing; `make test` installs it"
    docker("import", "--change", 'CMD ["true"]', "-", BUSYBOX_IMAGE, data=image_tar(Path(found)))
    return BUSYBOX_IMAGE


@pytest.fixture(scope="session")
def registry(busybox_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """``host:port`` of a registry that has ``busybox:1``; this engine has no image of that name."""
    folder = tmp_path_factory.mktemp("registry")
    port = _free_port()
    address = f"127.0.0.1:{port}"
    config = {
        "version": 0.1,
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": {"addr": address},
    }
    (folder / "config.yml").write_text(json.dumps(config))
    command = shutil.which("docker-registry") or shutil.which("registry")
    assert command, "docker-registry is missing; `make test` installs it"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([command, "serve", folder / "config.yml"], stdout=log, stderr=log)
    try:
        _wait_for_port(port, process)
        ref = f"{address}/busybox:1"
        docker("tag", busybox_image, ref)
        docker("push", ref)
        docker("rmi", ref)
        yield address
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=10)
        with contextlib.suppress(AssertionError):
            docker("rmi", f"{address}/busybox:1")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for_port(port: int, process: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + 15
    while time.monotonic() < end:
        assert process.poll() is None, "the registry stopped"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    raise AssertionError("the registry does not answer")


@dataclass
class Received:
    """One request as the server saw it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class HttpServer:
    """A web server on loopback. ``routes`` are tried by path without the query; others answer 404."""

    base: str
    routes: "dict[str, Callable[[BaseHTTPRequestHandler], None]]" = field(default_factory=dict)
    received: list[Received] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)

    def url(self, path: str) -> str:
        return self.base + path

    def serve(self, path: str, body: bytes = b"", status: int = 200) -> str:
        """Let ``path`` answer so; its URL."""

        def answer(request: BaseHTTPRequestHandler) -> None:
            request.send_response(status)
            request.send_header("Content-Length", str(len(body)))
            request.end_headers()
            request.wfile.write(body)

        self.routes[path] = answer
        return self.url(path)

    def stall(self, path: str) -> str:
        """Let ``path`` never answer; its URL."""

        def answer(_: BaseHTTPRequestHandler) -> None:
            self.stopping.wait(30)

        self.routes[path] = answer
        return self.url(path)

    def flood(self, path: str) -> str:
        """Let ``path`` send without end and without saying how much; its URL."""

        def answer(request: BaseHTTPRequestHandler) -> None:
            request.send_response(200)
            request.end_headers()
            with contextlib.suppress(OSError):
                while not self.stopping.is_set():
                    request.wfile.write(b"x" * 65_536)

        self.routes[path] = answer
        return self.url(path)


def _handler(server: HttpServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            server.received.append(Received(self.command, self.path, dict(self.headers), body))
            route = server.routes.get(self.path.partition("?")[0])
            if route is None:
                self.send_error(404)
            else:
                route(self)

        do_GET = do_PUT = do_POST = handle_any  # noqa: N815 - the base class calls these names

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's word
            """Be quiet."""

    return Handler


@pytest.fixture
def http_server() -> Iterator[HttpServer]:
    """A running :class:`HttpServer`."""
    listening = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    listening.daemon_threads = True
    server = HttpServer(f"http://127.0.0.1:{listening.server_address[1]}")
    listening.RequestHandlerClass = _handler(server)
    thread = threading.Thread(target=listening.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stopping.set()
        listening.shutdown()
        listening.server_close()
        thread.join()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that these tests start is reached through a proxy."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
