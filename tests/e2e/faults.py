"""Reverse proxies: one in front of S3 that refuses writes when told to, one in front of MLflow that kills who asks."""

from __future__ import annotations

import http.client
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import urlsplit

import psutil

WRITES = ("PUT", "POST")
REASONS = {403: "AccessDenied", 503: "SlowDown"}


class Proxy:
    """Passes every request on to `target`, under the name that it was sent to (S3 signs it) where it keeps the host."""

    keeps_host = True

    def __init__(self) -> None:
        self.target = ""
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def in_front_of(self, target: str) -> str:
        """Take the endpoint to stand in front of, and give the address to use in its place."""
        self.target = target
        return self.url

    def status_for(self, method: str, key: str) -> int | None:
        """The status to refuse a request with, or None."""
        del method, key
        return None

    def before_answer(self, method: str, key: str, port: int) -> None:
        """What to do once the target has answered, and whoever asks, from that port, has not heard of it."""

    @contextmanager
    def serving(self) -> Iterator[Self]:
        """Serve while the context lasts."""
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()


class FaultyS3(Proxy):
    """Refuses the writes that it is told to refuse.

    Attributes:
        refuse: the status to answer writes with; None lets them pass.
        where: only keys that hold this text.
        after: how many of those writes pass first.
        refused: keys of the writes that were refused.
    """

    def __init__(self) -> None:
        super().__init__()
        self.refused: list[str] = []
        self.heal()

    def heal(self) -> None:
        """Let everything pass."""
        self.refuse: int | None = None
        self.where, self.after = "", 0

    def status_for(self, method: str, key: str) -> int | None:
        with self._lock:
            if self.refuse is None or method not in WRITES or self.where not in key:
                return None
            if self.after > 0:
                self.after -= 1
                return None
            self.refused.append(key)
            return self.refuse


class Killer(Proxy):
    """Kills outright the process that asks to create a model version, between MLflow's doing it and its answer.

    Attributes:
        spare: one in so many of those who ask lives.
        killed: how many did not.
    """

    keeps_host = False  # MLflow refuses a name that it does not know

    def __init__(self, spare: int) -> None:
        super().__init__()
        self.spare, self.killed, self._asked = spare, 0, 0

    def before_answer(self, method: str, key: str, port: int) -> None:
        if method != "POST" or not key.endswith("/model-versions/create"):
            return
        with self._lock:
            self._asked += 1
            if self._asked % self.spare == 0:
                return
            asking = [
                link.pid for link in psutil.net_connections("tcp")
                if link.laddr.port == port and link.raddr and link.raddr.port == self._server.server_port
            ]  # fmt: skip
            for pid in filter(None, asking):
                os.kill(pid, signal.SIGKILL)
                self.killed += 1


def _handler(proxy: Proxy) -> type[BaseHTTPRequestHandler]:
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
            dropped = ("expect",) if proxy.keeps_host else ("expect", "host")
            headers = {name: value for name, value in self.headers.items() if name.lower() not in dropped}
            upstream.request(self.command, self.path, body, headers)
            response = upstream.getresponse()
            content = response.read()
            proxy.before_answer(self.command, self.path, self.client_address[1])
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
