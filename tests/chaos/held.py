"""An HTTP server whose answers wait until the test lets them go: a download or an upload stays under way."""

import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HOLD_SECONDS = 120


class HeldServer:
    """``/held/NAME`` waits for ``let_go(NAME)``; anything else is answered at once.

    ``asked`` counts the requests for each path, ``stored`` has what was uploaded, all versions of it.
    """

    def __init__(self) -> None:
        self._gates: defaultdict[str, threading.Event] = defaultdict(threading.Event)
        self.asked: defaultdict[str, int] = defaultdict(int)
        self.stored: defaultdict[str, list[bytes]] = defaultdict(list)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/held/{name}"

    def let_go(self, name: str) -> None:
        self._gates[f"/held/{name}"].set()

    def let_all_go(self) -> None:
        for gate in list(self._gates.values()):
            gate.set()

    def close(self) -> None:
        self.let_all_go()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        held = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._wait()
                self._answer(b"from the server\n")

            def do_PUT(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self._wait()
                held.stored[self.path].append(body)
                self._answer(b"")

            def _wait(self) -> None:
                held.asked[self.path] += 1
                if self.path.startswith("/held/"):
                    held._gates[self.path].wait(HOLD_SECONDS)

            def _answer(self, body: bytes) -> None:
                try:
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                except OSError:
                    pass  # whoever asked was killed

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
                """Say nothing."""

        return Handler
