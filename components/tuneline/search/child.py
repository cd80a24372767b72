"""What every process of a search does around its work: it ends with the one that asked, and tells it how it ended."""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tuneline.errors import DivergedError, InputError
from tuneline.trouble import told_of, trouble


class Stopped(Exception):  # noqa: N818 - an outcome: the one that asked wants no more
    """The trial is not worth its next epoch."""


def answer(pipe: Connection, work: Callable[[], Any], log: str = "") -> None:
    """Do the work and send how it ended ("done", "stopped", "diverged", "refused" or "failed") and a value.

    Args:
        pipe: to the one that asked, who may be killed at any time; this process then ends too.
        work: gives the value.
        log: file for what it prints, and for the traceback where it fails; empty where it does neither.
    """
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with _printing_to(log):
        try:
            pipe.send(("done", work()))
        except Stopped:
            pipe.send(("stopped", None))
        except DivergedError as error:
            pipe.send(("diverged", str(error)))
        except InputError as error:
            pipe.send(("refused", str(error)))
        except BrokenPipeError:  # nobody listens any more
            sys.exit(1)
        except Exception as error:
            if log:
                traceback.print_exc()
            # A library's own words may hold a text; what has no log works on none, and there is nothing else to go by.
            told = told_of(error) if log else trouble(error) or f"{type(error).__name__}: {error}"
            pipe.send(("failed", told))


def _end_with_parent() -> None:
    """End this process with the one that asked, however that ended."""
    if parent := parent_process():
        parent.join()
        os._exit(1)


@contextmanager
def _printing_to(log: str) -> Iterator[None]:
    if not log:
        yield
        return
    with Path(log).open("a", encoding="utf-8", buffering=1) as stream, redirect_stdout(stream), redirect_stderr(stream):
        yield
