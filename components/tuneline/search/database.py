"""The database of a study: opened for any number of commands, and waited for where it is away for a moment."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial, wraps
from typing import Any, TypeVar, cast

import optuna
from optuna.storages import RDBStorage
from optuna.storages._cached_storage import _CachedStorage
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from tuneline.errors import InputError, without_credentials
from tuneline.search.study import GRACE_SECONDS, HEARTBEAT_SECONDS
from tuneline.tracking import with_driver
from tuneline.trouble import database_is_away, patiently

Method = TypeVar("Method", bound=Callable[..., Any])


def _patient(method: Method) -> Method:
    """The method, made again while the database is away."""

    @wraps(method)
    def patient(self: Storage, *given: Any, **named: Any) -> Any:
        call = partial(method, self, *given, **named)
        return patiently(call, database_is_away, self.told, self.stop) if self.stop else call()

    return cast(Method, patient)


class Storage(_CachedStorage):
    """Optuna's storage, each of whose calls may be made twice.

    A trial that is made, or taken, by a call whose answer was lost has no owner: it is taken for dead after a minute.

    Attributes:
        told: hears why a call is made again; see `waits`.
        stop: set when nothing is waited for any more; None waits for nothing.
    """

    told: Callable[[str], None] = staticmethod(lambda _why: None)
    stop: threading.Event | None = None

    create_new_trial = _patient(_CachedStorage.create_new_trial)
    get_trial = _patient(_CachedStorage.get_trial)
    get_all_trials = _patient(_CachedStorage.get_all_trials)
    set_trial_param = _patient(_CachedStorage.set_trial_param)
    set_trial_intermediate_value = _patient(_CachedStorage.set_trial_intermediate_value)
    set_trial_state_values = _patient(_CachedStorage.set_trial_state_values)
    set_trial_user_attr = _patient(_CachedStorage.set_trial_user_attr)
    set_trial_system_attr = _patient(_CachedStorage.set_trial_system_attr)
    get_study_user_attrs = _patient(_CachedStorage.get_study_user_attrs)
    get_study_system_attrs = _patient(_CachedStorage.get_study_system_attrs)
    set_study_user_attr = _patient(_CachedStorage.set_study_user_attr)
    set_study_system_attr = _patient(_CachedStorage.set_study_system_attr)
    record_heartbeat = _patient(_CachedStorage.record_heartbeat)
    _get_stale_trial_ids = _patient(_CachedStorage._get_stale_trial_ids)


def waits(study: optuna.Study, told: Callable[[str], None], stop: threading.Event) -> None:
    """From now on have calls to a study wait, for three minutes each, while its database is away.

    Args:
        study: the study.
        told: hears why, at each further try.
        stop: set when nothing is waited for any more.
    """
    storage: Any = study._storage
    storage.told, storage.stop = told, stop


def open_storage(url: str) -> Storage:
    """The database, with Optuna's tables in it.

    Raises:
        InputError: it is not to be had.
    """
    try:
        for _ in range(4):
            with suppress(DBAPIError):  # another command is making the tables, perhaps
                return Storage(_opened(url))
            time.sleep(0.5)
        return Storage(_opened(url))
    except (SQLAlchemyError, ImportError, ValueError, RuntimeError) as error:
        why = without_credentials(str(error)).splitlines()[0]
        raise InputError(f"--storage: {without_credentials(url)}: no database for a study there: {why}") from None


def _opened(url: str) -> RDBStorage:
    patience = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {"pool_pre_ping": True}
    storage = RDBStorage(
        with_driver(url), engine_kwargs=patience, heartbeat_interval=HEARTBEAT_SECONDS, grace_period=GRACE_SECONDS
    )
    if storage.engine.name == "sqlite":
        event.listen(storage.engine, "begin", _lock)
    return storage


def _lock(connection: Any) -> None:
    """Have a transaction on SQLite begin with its lock.

    Python's driver begins it with the first write, and SQLite knows no SELECT FOR UPDATE, by which Optuna gives a
    waiting trial to one of those that ask: two could get it.
    """
    connection.connection.driver_connection.isolation_level = None  # no transactions that the driver begins
    connection.exec_driver_sql("BEGIN IMMEDIATE")
