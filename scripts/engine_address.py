"""Print the address of the first container engine that answers, in the form that DOCKER_HOST takes.

Where DOCKER_HOST is set, that engine alone is asked. When none answers: exit status 1, the reasons on stderr.
"""

import http.client
import os
import socket
import sys
from pathlib import Path
from urllib.parse import urlsplit

PATIENCE = 5.0  # seconds for one engine


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def candidates() -> list[str]:
    """Where an engine may listen: Docker first, then Podman; the system's before the user's."""
    if given := os.environ.get("DOCKER_HOST"):
        return [given]
    own = os.environ.get("XDG_RUNTIME_DIR", f"/run/user/{os.getuid()}")
    paths = [
        "/var/run/docker.sock",
        f"{own}/docker.sock",
        str(Path.home() / ".docker/run/docker.sock"),
        "/run/podman/podman.sock",
        f"{own}/podman/podman.sock",
    ]
    return [f"unix://{path}" for path in paths]


def connection(address: str) -> http.client.HTTPConnection:
    parts = urlsplit(address)
    if parts.scheme == "unix":
        return UnixConnection(parts.path)
    if parts.scheme in {"tcp", "http"} and parts.hostname:
        return http.client.HTTPConnection(parts.hostname, parts.port or 2375, timeout=PATIENCE)
    raise OSError("only unix:// and plain tcp:// addresses are understood")


def ping(address: str) -> None:
    """Return when the engine answers; OSError or HTTPException says why it does not."""
    asked = connection(address)
    try:
        asked.request("GET", "/_ping")
        status = asked.getresponse().status
    finally:
        asked.close()
    if status != http.HTTPStatus.OK:
        raise OSError(f"answered HTTP {status}")


def main() -> int:
    reasons = []
    for address in candidates():
        try:
            ping(address)
        except (OSError, http.client.HTTPException) as error:
            reasons.append(f"  {address}: {getattr(error, 'strerror', None) or error}")
        else:
            sys.stdout.write(f"{address}\n")
            return 0
    sys.stderr.write("No container engine answers:\n" + "\n".join(reasons) + "\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
