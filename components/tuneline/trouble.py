"""What the failure of a server that a run depends on means: one line, without credentials. Imports none of them."""

from __future__ import annotations

import os
import random
import re
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from tuneline.errors import ServiceError, without_credentials

_CLIENTS = ("requests", "urllib3")
_DRIVERS = ("psycopg", "psycopg2", "MySQLdb", "pymysql", "pyodbc")
_STORAGE = ("botocore", "boto3", "s3transfer")
Answer = TypeVar("Answer")
_PATIENCE_SECONDS = 180
_PASSING_CODES = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE")
# MLflow calls these a bad request, and its own client does not send it again.
_PASSING = r"QueuePool limit|database is locked|deadlock detected|could not serialize"
_KNOWN = (
    (r"QueuePool limit", "is overloaded: its connections to the database are all in use; try again"),
    (
        r"UNAUTHENTICATED|not authenticated|error code 401|401 Client Error",
        "the user or the password is refused; check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
    ),
    (
        r"PERMISSION_DENIED|error code 403|403 Client Error",
        "refused (403): the user may not do this, or the server's --allowed-hosts lacks this address",
    ),
    (
        r"Connection refused|NameResolutionError|not known|timed out|No route to host|unreachable",
        "not to be reached; start it, or check MLFLOW_TRACKING_URI",
    ),
    (
        r"/mlflow-artifacts/",
        "files are neither taken nor given: its artifact store, such as an S3 bucket, refuses or is away; "
        "see the server's log",
    ),
    (r"too many (?P<status>\d+) error responses", "answers with status {status} only; see the server's log"),
    (r"Connection aborted|Connection broken|reset by peer", "broke the connection off; see the server's log"),
)


def trouble(error: BaseException) -> str | None:
    """What MLflow, its HTTP client, S3 or a study's database did not do, in one line; None for another kind of error.

    Args:
        error: what was raised.
    """
    package, text = type(error).__module__.partition(".")[0], " ".join(str(error).split())
    if isinstance(error, ServiceError):
        return text
    if package in _STORAGE:
        return without_credentials(f"S3: {text}")[:500]
    if isinstance(error, ModuleNotFoundError) and error.name in _DRIVERS:
        needed = f"the database that MLFLOW_TRACKING_URI names needs Python's {error.name}"
        return f"{needed}; install it, or name another driver, as in mysql+pymysql://..."
    if said := _of_database(error):
        whose = "the study's database" if package == "optuna" else "the database"  # a study's, or MLflow's own
        return without_credentials(f"{whose}: {' '.join(said.split())}")[:500]
    if package != "mlflow" and not (package in _CLIENTS and "/mlflow" in text):
        return None
    return without_credentials(f"MLflow at {os.environ.get('MLFLOW_TRACKING_URI')}: {_meaning(text)}")[:500]


def told_of(error: BaseException) -> str:
    """What may stand in a tag of an error: its own words may hold an address with a password, or a text."""
    ours = type(error).__module__.partition(".")[0] in ("tuneline", "tuneline_pipelines")
    return str(error) if ours and str(error) else trouble(error) or type(error).__name__


def _of_database(error: BaseException | None) -> str | None:
    """What a database said, without Optuna's and SQLAlchemy's words for it; None where it is none's error."""
    package = type(error).__module__.partition(".")[0]
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if package == "optuna" and "StorageInternalError" in kinds and error:
        return _of_database(error.__cause__) or str(error)
    if package == "sqlalchemy" and kinds & {"DBAPIError", "TimeoutError"}:
        return str(getattr(error, "orig", None) or error)
    return None


def database_is_away(error: BaseException | None) -> bool:
    """Whether a database was not to be reached, or too busy: what the next try may not meet."""
    package = type(error).__module__.partition(".")[0]
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if package == "optuna" and "StorageInternalError" in kinds and error:
        return database_is_away(error.__cause__)
    lost = getattr(error, "connection_invalidated", False)
    return package == "sqlalchemy" and (lost or bool(kinds & {"OperationalError", "InterfaceError", "TimeoutError"}))


def _meaning(text: str) -> str:
    for pattern, told in _KNOWN:
        if match := re.search(pattern, text):
            return told.format(**match.groupdict())
    return text


def passes(error: BaseException) -> bool:
    """Whether the failure of a request to MLflow is one that the next try may not meet."""
    return getattr(error, "error_code", None) in _PASSING_CODES or re.search(_PASSING, str(error)) is not None


def patiently(
    ask: Callable[[], Answer],
    passing: Callable[[BaseException], bool] = passes,
    told: Callable[[str], None] = lambda _why: None,
    stop: threading.Event | None = None,
) -> Answer:
    """Make a request that may be made twice, for three minutes, until it does not fail in a way that passes.

    Args:
        ask: makes it.
        passing: whether a failure is one that passes.
        told: hears of each one that is waited for.
        stop: set when it is not to be waited for any more.
    """
    until, stop = time.monotonic() + _PATIENCE_SECONDS, stop or threading.Event()
    while True:
        try:
            return ask()
        except Exception as error:
            if not passing(error) or time.monotonic() > until or stop.is_set():
                raise
            told(trouble(error) or type(error).__name__)
        stop.wait(random.uniform(0.1, 1))
