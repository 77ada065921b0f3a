"""An HTTP server on this machine that breaks off, lies about bytes, or knows no ranges."""

from __future__ import annotations

import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class Server:
    """Serves ``content``; a mirror's first path element says how it misbehaves.

    good, rangeless, wrong (other bytes of the same length), missing (404), breaks (each answer ends after
    1000 bytes).
    """

    def __init__(self) -> None:
        self.content: dict[str, bytes] = {}
        self.requests: Counter[str] = Counter()
        self.ranges: list[str | None] = []
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def mirror(self, kind: str) -> str:
        return f"http://127.0.0.1:{self._http.server_port}/{kind}"

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                _, kind, name = self.path.split("/", 2)
                server.requests[kind] += 1
                server.ranges.append(self.headers.get("Range"))
                content = server.content.get(name)
                if kind == "missing" or content is None:
                    return self.send_error(404)
                if kind == "wrong":
                    content = bytes(len(content))
                start = 0
                if self.headers.get("Range") and kind != "rangeless":
                    start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
                if start >= len(content) > 0:
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(content)}")
                    self.send_header("Content-Length", "0")
                    return self.end_headers()
                self.send_response(206 if start else 200)
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
                self.send_header("Content-Length", str(len(content) - start))
                self.end_headers()
                end = min(start + 1000, len(content)) if kind == "breaks" else len(content)
                self.wfile.write(content[start:end])

            def log_message(self, *_: object) -> None:
                """Keep quiet."""

        return Handler


@pytest.fixture
def server():
    running = Server()
    yield running
    running.close()
