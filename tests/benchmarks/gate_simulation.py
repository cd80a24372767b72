"""How often the gate errs, and how often an interval holds the truth: simulated models whose accuracy is known.

Run: python -m tests.benchmarks.gate_simulation
"""

from __future__ import annotations

import time

from tests.simulation import PAIRS, coverage, declared_better, world

EQUAL = world(0.90, 0.90, unequal=0.07)
BETTER = world(0.91, 0.89, unequal=0.07)


def main() -> None:
    """Print the share of pairs that are called better, and the coverage of the 95% intervals."""
    print(f"called better, of {PAIRS} pairs; in brackets with another seed")
    for name, truth, rows in (("equal", EQUAL, 872), ("equal", EQUAL, 25_000), ("2 points apart", BETTER, 25_000)):
        first, second = (declared_better(truth, rows, seed=seed) for seed in (0, 1))
        print(f"  {name}, {rows} rows: {first:.1%} [{second:.1%}]")
    print(f"the interval holds the truth, of {PAIRS} test sets")
    for classes, rows in ((2, 872), (2, 25_000), (5, 872), (151, 5_500)):
        started = time.perf_counter()
        found = coverage(world(0.91, 0.89, unequal=0.07, classes=classes), rows)
        told = ", ".join(f"{name} {value:.1%}" for name, value in found._asdict().items())
        print(f"  {classes} classes, {rows} rows: {told} ({time.perf_counter() - started:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
