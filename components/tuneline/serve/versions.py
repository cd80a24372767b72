"""Which version answers: the first one, and those that an alias names later.

A new version is fetched, checked against what was registered, loaded and asked a question, all beside the old one. Only
then do new requests go to it; what the old one has taken it answers. A version that does not pass is refused, told, and
the old one goes on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import quote

from tuneline import registry
from tuneline.errors import InputError
from tuneline.progress import say
from tuneline.serve.batching import Batcher
from tuneline.serve.files import load
from tuneline.serve.meters import Meters
from tuneline.trouble import trouble

RETRY_SECONDS = 300
"""After which a refused version is tried again: its files may have been put right."""
_PROBE = "Is this version able to answer?"


@dataclass(frozen=True)
class Served:
    """A version that answers.

    Attributes:
        name: of the registered model.
        version: its number, as text.
        batcher: what answers.
    """

    name: str
    version: str
    batcher: Batcher

    @property
    def labels(self) -> list[str]:
        """Label names in the order of the probabilities' columns."""
        return self.batcher.classifier.labels

    @cached_property
    def columns(self) -> list[str]:
        """The names of the probabilities' columns, as the PyFunc has them."""
        return [f"p({label})" for label in self.labels]

    @property
    def pairs(self) -> bool:
        """Whether it answers pairs of texts."""
        return self.batcher.classifier.decision.pairs

    @cached_property
    def header(self) -> str:
        """NAME/VERSION, as a header may hold it."""
        return f"{quote(self.name)}/{self.version}"


class Versions:
    """Loads versions of what a reference names.

    Args:
        reference: MODEL@alias or MODEL/VERSION.
        precision: fp32 or bf16.
        start: makes the batcher of a classifier.
    """

    def __init__(self, reference: str, precision: str, start: Callable[[Any], Batcher]) -> None:
        self.reference, self.precision, self.start = reference, precision, start

    @property
    def may_move(self) -> bool:
        """Whether the reference is an alias."""
        return "@" in self.reference

    def find(self) -> Any:
        """The version that the reference names now.

        Raises:
            InputError: there is none.
        """
        return registry.find(self.reference)

    def load(self, version: Any) -> Served:
        """A version, ready to answer.

        Raises:
            InputError: it is not what was registered, or not a model of tuneline.
        """
        classifier = load(version, precision=self.precision)
        classifier.predict_proba([_PROBE], [_PROBE] if classifier.decision.pairs else None)
        return Served(version.name, str(version.version), self.start(classifier))


class Follower:
    """Looks where the alias is, from a thread of its own.

    Args:
        versions: loads them.
        seconds: between two looks.
        meters: count looks and refusals.
        first: the version that answers now.
        use: given each new version when it is ready.
    """

    def __init__(
        self, versions: Versions, seconds: float, meters: Meters, first: str, use: Callable[[Served], None]
    ) -> None:
        self.versions, self.seconds, self.meters, self.use = versions, seconds, meters, use
        self._current = first
        self._refused: dict[str, float] = {}
        self._troubled = False
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="follower", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stopped.set()

    def _follow(self) -> None:
        while not self._stopped.wait(self.seconds):
            try:
                version = self.versions.find()
            except Exception as error:
                self._failed(error)
                continue
            self.meters.looked(ok=True)
            if self._troubled:
                say(f"[serve] the registry names {version.name}/{version.version} again")
            self._troubled = False
            self._look_at(version)

    def _look_at(self, version: Any) -> None:
        number = str(version.version)
        if number == self._current or time.monotonic() < self._refused.get(number, 0):
            return
        try:
            served = self.versions.load(version)
        except Exception as error:
            if not isinstance(error, InputError) and (trouble(error) or isinstance(error, OSError)):
                self._failed(error)  # the store is away, or the disk full: at the next look again
            else:
                self._refuse(version, error)
            return
        if not self._stopped.is_set():
            self._current = number
            self.use(served)

    def _failed(self, error: Exception) -> None:
        """Told once for as long as it lasts."""
        self.meters.looked(ok=False)
        if not self._troubled:
            say(f"[serve] {self.versions.reference}: {_line(error)}; version {self._current} goes on")
        self._troubled = True

    def _refuse(self, version: Any, error: Exception) -> None:
        number = str(version.version)
        if number not in self._refused:
            say(f"[serve] refused: {_line(error)}; version {self._current} goes on")
        self._refused[number] = time.monotonic() + RETRY_SECONDS
        self.meters.refused(number)


def _line(error: Exception) -> str:
    """What went wrong. An error of a kind that is not known by its type alone: its words may be a text's."""
    return str(error) if isinstance(error, InputError) else trouble(error) or type(error).__name__
