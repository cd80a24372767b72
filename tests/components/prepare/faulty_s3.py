"""A reverse proxy in front of an S3 endpoint that breaks what is read through it when it is told to."""

from __future__ import annotations

import http.client
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

CHUNK = 1 << 18


class FaultyReads:
    """Passes every request on to `target`; answers to GETs of objects suffer the faults that are set.

    Attributes:
        cut: close the connection after this many bytes of a body; None sends it whole.
        flip: send this byte of a body with its lowest bit turned; None sends it as it is.
        refuse: answer with this status and code of an error; None asks the target.
        where: only keys that hold this text.
        times: how often, over all keys.
        asked: GETs of each key, and the ranges that they asked for.
        broken: bodies that were cut short; one that had no more than `cut` bytes left was not.
    """

    def __init__(self, target: str) -> None:
        self.target = urlsplit(target)
        self.cut: int | None = None
        self.flip: int | None = None
        self.refuse: tuple[int, str] | None = None
        self.where, self.times = "", 0
        self.asked: Counter[str] = Counter()
        self.ranges: list[str] = []
        self.broken = 0
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def strikes(self, method: str, path: str, span: str) -> bool:
        """Whether this request suffers."""
        key = path.partition("?")[0]
        with self._lock:
            if method == "GET" and key.count("/") > 1:
                self.asked[key] += 1
                self.ranges.append(span)
            if self.times <= 0 or method not in ("GET", "HEAD") or self.where not in path:
                return False
            if method == "HEAD" and not self.refuse:
                return False
            if key.count("/") < 2 and not self.refuse:
                return False
            self.times -= 1
            return True

    def note_broken(self) -> None:
        """Count a body that was cut short."""
        with self._lock:
            self.broken += 1

    @contextmanager
    def serving(self) -> Iterator[FaultyReads]:
        """Serve while the context lasts."""
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()


def _handler(proxy: FaultyReads) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            struck = proxy.strikes(self.command, self.path, self.headers.get("Range", ""))
            if struck and proxy.refuse:
                status, code = proxy.refuse
                body = b"" if self.command == "HEAD" else f"<Error><Code>{code}</Code></Error>".encode()
                self._start(status, {"Content-Type": "application/xml", "Content-Length": str(len(body))})
                self.wfile.write(body)
                return
            upstream = http.client.HTTPConnection(proxy.target.hostname or "", proxy.target.port, timeout=60)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name: value for name, value in self.headers.items() if name.lower() != "expect"}
            upstream.request(self.command, self.path, body, headers)
            answer = upstream.getresponse()
            self._start(answer.status, dict(answer.getheaders()))
            with suppress(ConnectionError):
                self._pass_on(answer, struck)
            upstream.close()

        do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815 - the names are http.server's

        def _start(self, status: int, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() not in ("transfer-encoding", "connection", "date", "server"):
                    self.send_header(name, value)
            if "content-length" not in {name.lower() for name in headers}:
                self.send_header("Connection", "close")
                self.close_connection = True
            self.end_headers()

        def _pass_on(self, answer: http.client.HTTPResponse, struck: bool) -> None:
            at = 0
            while chunk := answer.read(CHUNK):
                if struck and proxy.cut is not None and at + len(chunk) > proxy.cut:
                    self.wfile.write(chunk[: proxy.cut - at])
                    self.close_connection = True
                    proxy.note_broken()
                    return
                if struck and proxy.flip is not None and at <= proxy.flip < at + len(chunk):
                    turned = bytearray(chunk)
                    turned[proxy.flip - at] ^= 1
                    chunk = bytes(turned)
                self.wfile.write(chunk)
                at += len(chunk)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    return Handler
