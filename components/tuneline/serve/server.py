"""The service as a process: load, listen, follow the alias, and end without losing a request."""

from __future__ import annotations

import asyncio
import math
import socket
import sys
import time
from contextlib import redirect_stdout
from types import FrameType
from typing import Any, TextIO, cast

import uvicorn

from tuneline.errors import InputError
from tuneline.progress import Lasting, say
from tuneline.serve.http import app_of
from tuneline.serve.meters import Meters
from tuneline.serve.service import Options, Service, starter
from tuneline.serve.versions import Follower, Versions

_BACKLOG = 2048
_KEEP_ALIVE_SECONDS = 75
"""Longer than the minute after which load balancers let go of a connection: they must be the ones to end it."""


def serve(reference: str, options: Options) -> None:
    """Answer until SIGTERM or SIGINT, whether or not anybody reads its log; MLFLOW_TRACKING_URI names the registry.

    Args:
        reference: MODEL@alias, which is followed, or MODEL/VERSION.
        options: how.

    Raises:
        InputError: no such model, not what was registered, or an address that cannot be listened at.
    """
    out = sys.stdout
    with redirect_stdout(cast(TextIO, Lasting(lambda: out))):
        _serve(reference, options)


def _serve(reference: str, options: Options) -> None:
    meters = Meters()
    versions = Versions(reference, options.precision, starter(options, meters))
    listening = _listen(options)
    with listening:
        service = Service.open(versions, options, meters)
        config = uvicorn.Config(
            app_of(service), log_level="warning", access_log=False, lifespan="off", server_header=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS, timeout_graceful_shutdown=math.ceil(options.drain_seconds),
        )  # fmt: skip
        server = _Server(config, service, versions)
        server.run(sockets=[listening])
    service.close(options.drain_seconds)
    say("[serve] ended")


def _listen(options: Options) -> socket.socket:
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    try:
        listening = socket.create_server((options.host, options.port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise InputError(f"--host {options.host} --port {options.port}: {error.strerror or error}") from None
    # Connections inherit it. asyncio sets it only where the listening socket names its protocol, which create_server's
    # does not; without it each answer's body waits 40 ms for the client to acknowledge the head.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


class _Server(uvicorn.Server):
    """uvicorn, which follows the alias while it runs, and lingers and drains at its end."""

    def __init__(self, config: uvicorn.Config, service: Service, versions: Versions) -> None:
        super().__init__(config)
        self.service, self.versions = service, versions
        self.follower: Follower | None = None
        self.leaves_at = float("inf")

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        served, options = self.service.served, self.service.options
        host, port = sockets[0].getsockname()[:2] if sockets else (options.host, options.port)
        shown = f"[{host}]" if ":" in host else host
        say(f"[serve] {served.name}/{served.version} answers at http://{shown}:{port} (documentation: /docs)")
        if self.versions.may_move:
            loop = asyncio.get_running_loop()

            def use(new: Any) -> None:
                loop.call_soon_threadsafe(self.service.use, new)

            self.follower = Follower(self.versions, options.poll_seconds, self.service.meters, served.version, use)
            self.follower.start()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal begins the end, a second one hurries it."""
        if self.service.draining:
            self.force_exit = self.should_exit
            self.should_exit = True
            return
        self.service.draining = True
        self.leaves_at = time.monotonic() + self.service.options.linger_seconds
        if self.follower:
            self.follower.stop()

    async def on_tick(self, counter: int) -> bool:
        if time.monotonic() >= self.leaves_at:
            self.should_exit = True
        return await super().on_tick(counter)
