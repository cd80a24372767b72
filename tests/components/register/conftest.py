"""An evaluation made of answers by hand, for the gate and the registry."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tuneline.predictions import Predictions, keys

NAMES = ["neg", "pos"]


def predictions(
    rows: int,
    wrong: Sequence[int] | range,
    baseline_wrong: Sequence[int] | range = (),
    slices: dict[str, range] | None = None,
) -> Predictions:
    """Answers to that many rows of two classes in turn, wrong in these rows."""
    labels = np.arange(rows, dtype=np.int32) % 2
    answers, baseline = labels.copy(), labels.copy()
    answers[list(wrong)] ^= 1
    baseline[list(baseline_wrong)] ^= 1
    confidence = np.full(rows, 0.9, np.float32)
    parts = {name: np.isin(np.arange(rows), part) for name, part in (slices or {}).items()}
    return Predictions(
        NAMES, keys([f"text {row}" for row in range(rows)]), labels, answers, confidence, confidence, baseline, parts
    )
