"""How far the fine-tuned model is ahead of the linear baseline on the sample data: three seeds of the quickstart.

Run: make bench, or python -m tests.benchmarks.sample_gap
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

SEEDS = (0, 1, 2)


def main() -> None:
    """Print each seed's accuracies and the mean gap in points."""
    gaps = []
    with tempfile.TemporaryDirectory() as home:
        for seed in SEEDS:
            done = subprocess.run(
                [Path(sys.executable).parent / "tuneline", "run", f"train.seed={seed}", "--json"],
                env=os.environ | {"TUNELINE_HOME": home}, stdout=subprocess.PIPE, text=True, check=True,
            )  # fmt: skip
            result = json.loads(done.stdout)
            metrics, seconds = result["metrics"], result["seconds"]
            gaps.append(100 * (metrics["accuracy"] - metrics["baseline_accuracy"]))
            print(
                f"seed {seed}: fine-tuned {metrics['accuracy']:.4f}, baseline {metrics['baseline_accuracy']:.4f}, "
                f"gap {gaps[-1]:.1f} points; {seconds['total']:.0f} s, {seconds['not_training']:.0f} s not training"
            )
    print(f"mean gap {statistics.mean(gaps):.1f} points (from {min(gaps):.1f} to {max(gaps):.1f})")


if __name__ == "__main__":
    main()
