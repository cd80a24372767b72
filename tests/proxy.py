"""A reverse proxy that breaks what passes through it: what it breaks, and when, its subclasses say."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import urlsplit

CHUNK = 1 << 18


@dataclass(frozen=True)
class Fault:
    """How a request suffers; by default it does not.

    Attributes:
        refuse: answer with this status and S3's code of an error; None asks the target.
        cut: close the connection after this many bytes of the body; None sends it whole.
        flip: send this byte of the body with its lowest bit turned; None sends it as it is.
    """

    refuse: tuple[int, str] | None = None
    cut: int | None = None
    flip: int | None = None


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

    def fault(self, method: str, path: str, span: str) -> Fault:
        """How this request suffers; `span` is the range of bytes that it asks for, or empty."""
        del method, path, span
        return Fault()

    def before_answer(self, method: str, path: str, port: int) -> None:
        """What to do once the target has answered, and whoever asks, from that port, has not heard of it."""

    def note_cut(self) -> None:
        """Hear of a body that was cut short; one that had no more than `cut` bytes was not."""

    @contextmanager
    def serving(self) -> Iterator[Self]:
        """Serve while the context lasts."""
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()


def _handler(proxy: Proxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fault = proxy.fault(self.command, self.path, self.headers.get("Range", ""))
            if fault.refuse:
                self._refuse(*fault.refuse)
                return
            place = urlsplit(proxy.target)
            upstream = http.client.HTTPConnection(place.hostname or "", place.port, timeout=60)
            dropped = ("expect",) if proxy.keeps_host else ("expect", "host")
            headers = {name: value for name, value in self.headers.items() if name.lower() not in dropped}
            upstream.request(self.command, self.path, sent, headers)
            answer = upstream.getresponse()
            proxy.before_answer(self.command, self.path, self.client_address[1])
            with suppress(ConnectionError):
                self._start(answer.status, dict(answer.getheaders()))
                self._pass_on(answer, fault)
            upstream.close()

        do_HEAD = do_PUT = do_POST = do_DELETE = do_PATCH = do_GET  # noqa: N815 - the names are http.server's

        def _refuse(self, status: int, code: str) -> None:
            body = b"" if self.command == "HEAD" else f"<Error><Code>{code}</Code></Error>".encode()
            self._start(status, {"Content-Type": "application/xml", "Content-Length": str(len(body))})
            self.wfile.write(body)

        def _start(self, status: int, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() not in ("transfer-encoding", "connection", "date", "server"):
                    self.send_header(name, value)
            if "content-length" not in {name.lower() for name in headers}:
                self.send_header("Connection", "close")
                self.close_connection = True
            self.end_headers()

        def _pass_on(self, answer: http.client.HTTPResponse, fault: Fault) -> None:
            at = 0
            while chunk := answer.read(CHUNK):
                if fault.cut is not None and at + len(chunk) > fault.cut:
                    self.wfile.write(chunk[: fault.cut - at])
                    self.close_connection = True
                    proxy.note_cut()
                    return
                if fault.flip is not None and at <= fault.flip < at + len(chunk):
                    turned = bytearray(chunk)
                    turned[fault.flip - at] ^= 1
                    chunk = bytes(turned)
                self.wfile.write(chunk)
                at += len(chunk)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    return Handler
