"""Reverse proxies: one in front of S3 that refuses writes when told to, one in front of MLflow that kills who asks."""

from __future__ import annotations

import os
import signal

import psutil

from tests.proxy import Fault, Proxy

WRITES = ("PUT", "POST")
REASONS = {403: "AccessDenied", 503: "SlowDown"}


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

    def fault(self, method: str, path: str, span: str) -> Fault:
        with self._lock:
            if self.refuse is None or method not in WRITES or self.where not in path:
                return Fault()
            if self.after > 0:
                self.after -= 1
                return Fault()
            self.refused.append(path)
            return Fault((self.refuse, REASONS[self.refuse]))


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

    def before_answer(self, method: str, path: str, port: int) -> None:
        if method != "POST" or not path.endswith("/model-versions/create"):
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
