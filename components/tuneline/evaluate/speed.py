"""How long an answer takes on the machine that evaluates, and how large the model is."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tuneline.machine import usable_cores

WARM_UP = 3
MOST_TEXTS = 200
MOST_SECONDS = 0.2
LEAST_TEXTS = 20


def latency(
    predict: Callable[..., Any], texts: Sequence[str], pairs: Sequence[str] | None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:  # fmt: skip
    """Milliseconds from one text to its answer: latency_p50_ms, latency_p99_ms, latency_texts.

    Of at most 200 texts, and of no more than 0.2 seconds' worth once there are 20.

    Args:
        predict: what answers a list of texts, and of second texts where there are such.
        texts: to ask one by one.
        pairs: second texts.
        clock: what tells the seconds.
    """
    import numpy as np

    def ask(place: int) -> None:
        predict([texts[place]], *([[pairs[place]]] if pairs is not None else []))

    for place in range(min(WARM_UP, len(texts))):
        ask(place)
    taken: list[float] = []
    while len(taken) < min(MOST_TEXTS, len(texts)) and (len(taken) < LEAST_TEXTS or sum(taken) < MOST_SECONDS):
        started = clock()
        ask(len(taken))
        taken.append(clock() - started)
    p50, p99 = (1000 * np.quantile(taken, [0.5, 0.99])).tolist()
    return {"latency_p50_ms": p50, "latency_p99_ms": p99, "latency_texts": float(len(taken))}


def size_mb(model: Path) -> float:
    """Megabytes of a model folder's files."""
    return sum(path.stat().st_size for path in model.iterdir() if path.is_file()) / 1e6


def machine(device: str) -> str:
    """What measured, for people."""
    return f"{device} of {platform.machine()}, {usable_cores()} cores"
