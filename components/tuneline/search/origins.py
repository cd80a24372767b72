"""What results come from beside data and settings, as a part of their names: a checkpoint's files, and the code.

A checkpoint's files may change under its name and code by an upgrade, and what a search keeps outlives both.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuneline.artifacts import address
from tuneline.config import ModelConfig
from tuneline.search.processes import call


@dataclass
class Origins:
    """Those of one command, which reads each checkpoint's files once, in another process."""

    _known: dict[str, dict[str, Any]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def of(self, data: Path, model: ModelConfig) -> dict[str, Any]:
        """Hashes of a checkpoint's files and of the code.

        Args:
            data: any that was prepared for it.
            model: names it.

        Raises:
            InputError: there is no such checkpoint.
        """
        with self._lock:
            if model.name not in self._known:
                asked = (str(data), model.model_dump(mode="json"))
                self._known[model.name] = call("tuneline.search.fingerprint", asked, threading.Event())[1]
            return self._known[model.name]

    def of_all(self, read: Iterable[tuple[Path, ModelConfig]]) -> str:
        """Those of several checkpoints, as one short name."""
        return address(origins=[self.of(data, model) for data, model in read])
