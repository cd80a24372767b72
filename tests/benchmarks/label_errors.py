"""How many of SST-2's training labels, 5% flipped at random, stand among the top 10% of the list: three seeds.

Run: make bench, or python -m tests.benchmarks.label_errors
"""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from tuneline.prepare import label_errors

SEEDS = (0, 1, 2)
FLIPPED, LOOKED_AT, WANTED = 0.05, 0.10, 0.55


def recall(texts: list[str], labels: np.ndarray, classes: list[str], seed: int) -> tuple[float, label_errors.Ranked]:
    """The share of the flipped rows that stands in the top of the list, and the list."""
    generator = np.random.default_rng(seed)
    flipped = generator.choice(len(texts), int(FLIPPED * len(texts)), replace=False)
    wrong = labels.copy()
    wrong[flipped] = (wrong[flipped] + generator.integers(1, len(classes), len(flipped))) % len(classes)
    ranked = label_errors.find(texts, wrong, classes, seed)
    return float(np.isin(flipped, ranked.rows[: int(LOOKED_AT * len(texts))]).mean()), ranked


def sst2(folder: Path) -> tuple[list[str], np.ndarray, list[str]]:
    """Texts, labels and classes of the training split."""
    table = pq.read_table(folder / "sst2/train.parquet")
    classes, labels = np.unique(table.column("label").to_pylist(), return_inverse=True)
    return table.column("text").to_pylist(), labels, classes.tolist()


def main() -> None:
    """Print each seed's figure and their mean."""
    texts, labels, classes = sst2(Path(os.environ.get("TUNELINE_DATA", "../shared/data")))
    found = []
    for seed in SEEDS:
        started = time.perf_counter()
        share, ranked = recall(texts, labels, classes, seed)
        seconds = time.perf_counter() - started
        found.append(share)
        print(
            f"seed {seed}: {share:.1%} of {int(FLIPPED * len(texts))} flipped labels are in the top "
            f"{LOOKED_AT:.0%} of {len(texts)} rows; {ranked.count} candidates; {seconds:.1f} s"
        )
    print(f"mean {statistics.mean(found):.1%} (from {min(found):.1%} to {max(found):.1%}); wanted {WANTED:.0%}")


if __name__ == "__main__":
    main()
