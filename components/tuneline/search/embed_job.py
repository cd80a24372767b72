"""What embedding a checkpoint's texts is asked for, and what comes of it; embed.py does it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tuneline.artifacts import read_json


@dataclass(frozen=True)
class Asked:
    """What is embedded.

    Attributes:
        data: folder of prepared data.
        model: the checkpoint's name.
        rows: most training rows; the validation split is taken whole.
        out: file to write (.npz): train, train_labels, validation, validation_labels.
        log: file for what is printed.
        threads: of its arithmetic.
    """

    data: str
    model: str
    rows: int
    out: str
    log: str
    threads: int = 1


@dataclass(frozen=True)
class Facts:
    """What the checkpoint costs.

    Attributes:
        parameters: how many it has, without a head.
        latency_ms: median milliseconds of the network for one text.
        seconds: of embedding all.
    """

    parameters: int
    latency_ms: float
    seconds: float


def known_facts(path: Path) -> Facts:
    """Those of an earlier command."""
    return Facts(**read_json(path))
