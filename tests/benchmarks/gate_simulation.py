"""How often the gate errs, and how often an interval holds the truth: simulated models whose accuracy is known.

Run: python -m tests.benchmarks.gate_simulation
"""

from __future__ import annotations

import time

import numpy as np

from tests.simulation import PAIRS, below, compared, coverage, declared_better, world

EQUAL = world(0.90, 0.90, unequal=0.07)
BETTER = world(0.91, 0.89, unequal=0.07)
PRIORS = {"50/50": [0.5, 0.5], "80/20": [0.8, 0.2], "95/5": [0.95, 0.05], "10 alike": [0.1] * 10}


def main() -> None:
    """Print the share of pairs that are called better, and the coverage of the 95% intervals."""
    print(f"called better, of {PAIRS} pairs; in brackets with another seed")
    for name, truth, rows in (("equal", EQUAL, 872), ("equal", EQUAL, 25_000), ("2 points apart", BETTER, 25_000)):
        first, second = (declared_better(truth, rows, seed=seed) for seed in (0, 1))
        print(f"  {name}, {rows} rows: {first:.1%} [{second:.1%}]")
    macro_f1()
    print(f"the interval holds the truth, of {PAIRS} test sets")
    for classes, rows in ((2, 872), (2, 25_000), (5, 872), (151, 5_500)):
        started = time.perf_counter()
        found = coverage(world(0.91, 0.89, unequal=0.07, classes=classes), rows)
        told = ", ".join(f"{name} {value:.1%}" for name, value in found._asdict().items())
        print(f"  {classes} classes, {rows} rows: {told} ({time.perf_counter() - started:.0f} s)", flush=True)


def macro_f1() -> None:
    """Print how often the rules on macro F1 err, at the margin and between equals, and what they show."""
    print("macro F1: not worse at a margin of the true distance (5% and 2% right alone, 3% and 0%); better, of equals;")
    print("  not worse by 3 points, of equals; better, of 5% and 2% right alone; the last two also in accuracy")
    for rows in (50, 100, 1000):
        for name, prior in PRIORS.items():
            told = []
            for only_second, only_first in ((0.05, 0.02), (0.03, 0.0)):
                truth = below(np.array(prior), only_second, only_first)
                margin = truth.macro_f1_of(truth.second) - truth.macro_f1
                told.append([one.not_worse(margin, "macro_f1") for one in compared(truth, rows, 400)])
            equal = compared(below(np.array(prior), 0.035, 0.035), rows, 400)
            better = compared(below(np.array(prior), 0.02, 0.05), rows, 400)
            told.append([one.better("macro_f1") for one in equal])
            for metric in ("macro_f1", "accuracy"):
                told.append([one.not_worse(0.03, metric) for one in equal])
                told.append([one.better(metric) for one in better])
            print(f"  {rows} rows, {name}: " + ", ".join(f"{np.mean(one):.1%}" for one in told), flush=True)


if __name__ == "__main__":
    main()
