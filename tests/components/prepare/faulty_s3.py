"""A reverse proxy in front of an S3 endpoint that breaks what is read through it when it is told to."""

from __future__ import annotations

from collections import Counter

from tests.proxy import Fault, Proxy


class FaultyReads(Proxy):
    """Answers to GETs of objects suffer the faults that are set.

    Attributes:
        cut: close the connection after this many bytes of a body; None sends it whole.
        flip: send this byte of a body with its lowest bit turned; None sends it as it is.
        refuse: answer with this status and code of an error; None asks the target.
        where: only keys that hold this text.
        times: how often, over all keys.
        asked: GETs of each key, and the ranges that they asked for.
        broken: bodies that were cut short; one that had no more than `cut` bytes left was not.
    """

    def __init__(self) -> None:
        super().__init__()
        self.cut: int | None = None
        self.flip: int | None = None
        self.refuse: tuple[int, str] | None = None
        self.where, self.times = "", 0
        self.asked: Counter[str] = Counter()
        self.ranges: list[str] = []
        self.broken = 0

    def fault(self, method: str, path: str, span: str) -> Fault:
        key = path.partition("?")[0]
        with self._lock:
            if method == "GET" and key.count("/") > 1:
                self.asked[key] += 1
                self.ranges.append(span)
            if self.times <= 0 or method not in ("GET", "HEAD") or self.where not in path:
                return Fault()
            if method == "HEAD" and not self.refuse:
                return Fault()
            if key.count("/") < 2 and not self.refuse:
                return Fault()
            self.times -= 1
            return Fault(self.refuse, self.cut, self.flip)

    def note_cut(self) -> None:
        with self._lock:
            self.broken += 1
