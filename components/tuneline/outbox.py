"""What waits for a server: sent in batches from a thread of its own, kept while the server is away.

Training must not stop, and hours of it must not be lost, because a tracking server restarts. What could not be sent is
offered again later, in order; only `flush`, at the end of a step, insists.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

_MOST = 1000
"""MLflow takes no more in one call."""


class Outbox:
    """A queue to a server. As a context it sends by itself; outside of one, only by flush.

    Args:
        send: sends a batch, and raises where it cannot.
        tell: called once a time of trouble with the error, and with None when it is over.
        full: how many items are sent without waiting longer.
        seconds: how long fewer items wait, and how long after a failure the next attempt is made.
    """

    def __init__(
        self,
        send: Callable[[list[Any]], object],
        tell: Callable[[Exception | None], None],
        full: int = 200,
        seconds: float = 5.0,
    ) -> None:
        self._send, self._tell, self._full, self._seconds = send, tell, full, seconds
        self._waiting: list[Any] = []
        self._sender = threading.Lock()  # one at a time, so that the order is kept
        self._due, self._closed = threading.Event(), threading.Event()
        self._in_trouble = False

    def __enter__(self) -> Outbox:
        threading.Thread(target=self._work, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._due.set()

    def put(self, items: Sequence[Any]) -> None:
        """Take items; never waits for the server."""
        self._waiting.extend(items)
        if len(self._waiting) >= self._full and not self._in_trouble:
            self._due.set()

    def flush(self, patience: float = -1) -> None:
        """Send all that waits.

        Args:
            patience: seconds to wait for an attempt that is under way in the thread; -1 has no end.

        Raises:
            TimeoutError: that attempt took longer.
            Exception: what sending raised; what was not sent is kept.
        """
        if not self._sender.acquire(timeout=patience):
            raise TimeoutError("an attempt to send is still under way")
        try:
            while batch := self._waiting[:_MOST]:
                self._send(batch)
                del self._waiting[: len(batch)]
        finally:
            self._sender.release()

    def _work(self) -> None:
        while not self._closed.is_set():
            self._due.wait(self._seconds)
            self._due.clear()
            try:
                self.flush()
            except Exception as error:  # whatever it is: the step goes on, and its end will insist
                self._turn(error)
            else:
                self._turn(None)

    def _turn(self, error: Exception | None) -> None:
        if self._in_trouble != (error is not None):
            self._in_trouble = error is not None
            self._tell(error)
