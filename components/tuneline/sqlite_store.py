"""MLflow's store on this machine, an SQLite file: it gets its name when it has all its tables.

MLflow would make them in place, one after the other: of two commands that start at the same moment one would find a
half of them, and so would all that come after one that is killed.
"""

from __future__ import annotations

from pathlib import Path

from tuneline.artifacts import locked
from tuneline.errors import InputError


def make_store(uri: str) -> None:
    """Make the store of an address where it is an SQLite file that is not there; leave every other alone.

    Raises:
        InputError: its folder cannot be written.
    """
    if not uri.startswith("sqlite:///"):
        return
    from sqlalchemy import make_url

    url = make_url(uri)
    if url.query or url.database in (None, "", ":memory:"):
        return
    file = Path(url.database).resolve()
    if file.exists():
        return
    try:
        with locked(file.with_name(f"{file.name}.lock")):
            if not file.exists():
                _fill_store(file)
    except OSError as error:
        why = error.strerror or error
        raise InputError(
            f"{file}: cannot be made ({why}); name a folder by TUNELINE_HOME, or MLFLOW_TRACKING_URI"
        ) from None


def _fill_store(file: Path) -> None:
    from mlflow.store.tracking import DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    unnamed = file.with_name(f"{file.name}.new")
    _remove(unnamed, *_logs_of(unnamed))  # of one that was killed
    SqlAlchemyStore(f"sqlite:///{unnamed}", DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH).engine.dispose()
    if file.exists():  # an MLflow that knows nothing of the lock was quicker
        _remove(unnamed)
        return
    _remove(*_logs_of(file))  # of a store that was moved away: it would be rolled back into this one
    unnamed.rename(file)


def _logs_of(database: Path) -> list[Path]:
    return [database.with_name(f"{database.name}-{kind}") for kind in ("journal", "wal", "shm")]


def _remove(*files: Path) -> None:
    for file in files:
        file.unlink(missing_ok=True)
