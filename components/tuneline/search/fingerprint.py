"""Hashes a checkpoint's files and the code that trains and measures. Runs in a process of its own, as a trial does."""

from __future__ import annotations

import hashlib
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tuneline import inputs, statistics
from tuneline.artifacts import PreparedData
from tuneline.config import ModelConfig
from tuneline.errors import InputError
from tuneline.evaluate import metrics
from tuneline.search import embed, trial
from tuneline.train.checkpoints import code_hash
from tuneline.train.train import origin
from tuneline.trouble import trouble

OF_DATA = ("data", "tokenizer", "cut")
"""What the name of the prepared data's folder stands for already."""


def main(pipe: Connection, asked: tuple[str, dict[str, Any]]) -> None:
    """The process: sends how it ended, and a value."""
    threading.Thread(target=trial.end_with_parent, daemon=True).start()
    data, model = asked
    try:
        found = origin(PreparedData.load(Path(data)), ModelConfig.model_validate(model))
        pipe.send(("done", {key: value for key, value in found.items() if key not in OF_DATA} | {"code": _code()}))
    except InputError as error:
        pipe.send(("refused", str(error)))
    except Exception as error:
        pipe.send(("refused" if (why := trouble(error)) else "failed", why or f"{type(error).__name__}: {error}"))


def _code() -> str:
    """A hash of the code that decides what is stored: how a model trains and embeds, and how its answers are scored."""
    digest = hashlib.sha256(code_hash().encode())
    for module in (metrics, statistics, inputs, trial, embed):
        digest.update(Path(module.__file__ or "").read_bytes())
    return digest.hexdigest()
