"""A small HTTP server on loopback that serves given files and keeps what is uploaded: stands in for a bucket."""

import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any


class FileServer:
    """Use as a context manager. ``files``: path to contents, for GET. ``uploads``: what PUT requests brought."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.uploads: dict[str, bytes] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(files, self.uploads))
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "FileServer":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _handler(files: Mapping[str, bytes], uploads: dict[str, bytes]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = files.get(self.path)
            self._answer(200 if body is not None else 404, body or b"no such file\n")

        def do_PUT(self) -> None:
            uploads[self.path] = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self._answer(201, b"stored\n")

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            """Say nothing."""

    return Handler
