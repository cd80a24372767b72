"""Hashes a checkpoint's files and the code that trains and measures. Runs in a process of its own, as a trial does."""

from __future__ import annotations

from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tuneline import statistics
from tuneline.artifacts import PreparedData, source_hash
from tuneline.config import ModelConfig
from tuneline.evaluate import metrics
from tuneline.search import embed, trial
from tuneline.search.child import answer
from tuneline.train.checkpoints import code_hash
from tuneline.train.train import origin

OF_DATA = ("data", "tokenizer", "cut")
"""What the name of the prepared data's folder stands for already."""


def main(pipe: Connection, asked: tuple[str, dict[str, Any]]) -> None:
    """The process: sends how it ended, and a value."""
    data, model = asked
    answer(pipe, lambda: _found(Path(data), ModelConfig.model_validate(model)))


def _found(data: Path, model: ModelConfig) -> dict[str, Any]:
    found = origin(PreparedData.load(data), model)
    return {key: value for key, value in found.items() if key not in OF_DATA} | {"code": _code()}


def _code() -> str:
    """A hash of the code that decides what is stored: how a model trains and embeds, and how its answers are scored."""
    return code_hash() + source_hash(*(Path(module.__file__ or "") for module in (metrics, statistics, trial, embed)))
