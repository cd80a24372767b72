"""A reverse proxy in front of an S3 endpoint that refuses writes when it is told to."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

WRITES = ("PUT", "POST")
REASONS = {403: "AccessDenied", 503: "SlowDown"}


class FaultyS3:
    """Passes every request on to `target`, but for the writes that it is told to refuse.

    Attributes:
        refuse: the status to answer writes with; None lets them pass.
        where: only keys that hold this text.
        after: how many of those writes pass first.
        refused: keys of the writes that were refused.
    """

    def __init__(self) -> None:
        self.target = ""
        self.refused: list[str] = []
        self.heal()
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def heal(self) -> None:
        """Let everything pass."""
        self.refuse: int | None = None
        self.where, self.after = "", 0

    def in_front_of(self, target: str) -> str:
        """Take the endpoint to stand in front of, and give the address to use in its place."""
        self.target = target
        return self.url

    def status_for(self, method: str, key: str) -> int | None:
        """The status to refuse a request with, or None."""
        with self._lock:
            if self.refuse is None or method not in WRITES or self.where not in key:
                return None
            if self.after > 0:
                self.after -= 1
                return None
            self.refused.append(key)
            return self.refuse

    @contextmanager
    def serving(self) -> Iterator[FaultyS3]:
        """Serve while the context lasts."""
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()


def _handler(proxy: FaultyS3) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if status := proxy.status_for(self.command, self.path):
                text = f"<Error><Code>{REASONS[status]}</Code><Message>refused by the test</Message></Error>".encode()
                self._answer(status, {"Content-Type": "application/xml"}, text)
                return
            place = urlsplit(proxy.target)
            upstream = http.client.HTTPConnection(place.hostname or "", place.port, timeout=30)
            headers = {name: value for name, value in self.headers.items() if name.lower() != "expect"}
            upstream.request(self.command, self.path, body, headers)
            response = upstream.getresponse()
            content = response.read()
            self._answer(response.status, dict(response.getheaders()), content, response.getheader("Content-Length"))
            upstream.close()

        do_GET = do_HEAD = do_POST = do_DELETE = do_PUT  # noqa: N815 - the names are http.server's

        def _answer(self, status: int, headers: dict[str, str], body: bytes, length: str | None = None) -> None:
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                    self.send_header(name, value)
            self.send_header("Content-Length", length if self.command == "HEAD" and length else str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    return Handler
