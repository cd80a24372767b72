"""The signals by which a cluster, a command or a person stops a process."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def not_ignored() -> list[signal.Signals]:
    """Those that this process may hear: whoever starts a command by `nohup` wants it to outlive its terminal."""
    return [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]


@contextmanager
def handled(handler: Callable[[int, FrameType | None], object] | signal.Handlers) -> Iterator[None]:
    """While this lasts, the signals that are not ignored go to the handler; only the main thread may say so."""
    before: dict[signal.Signals, Any] = {}
    try:
        for number in not_ignored():
            before[number] = signal.getsignal(number)
            signal.signal(number, handler)
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def ignore() -> None:
    """Ignore the signals from now on."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def unstoppable() -> Iterator[None]:
    """While this lasts, the signals are ignored, so that how the work ended can be written down; it has to be brief.

    A process is often told twice: by a broken pipe and a signal, or by an impatient Ctrl-C. They reach the main thread
    alone; elsewhere this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with handled(signal.SIG_IGN):
        yield
