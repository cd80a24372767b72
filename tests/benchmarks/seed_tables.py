"""What seed_accuracy.py has written, as tables: each seed, paired differences with their intervals, and the trade."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

Result = dict[str, Any]
Rows = dict[tuple[str, str], dict[int, Result]]

SETTING = ("texts", "tests", "tokens", "epochs")


def known(path: Path) -> list[Result]:
    """The results in a file; a line that a kill has cut short is no result."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def key(result: Result) -> tuple[Any, ...]:
    """What is run once: a contender and a seed in a setting."""
    return tuple(result[name] for name in ("contender", "seed", *SETTING))


def tables(results: list[Result], trainer: str, ours: str) -> str:
    """The tables of each setting in Markdown, those that are compared first.

    Where the same contender ran on several devices it has a row for each; it is compared with those on its own device,
    or else, since the texts are the same, with those on another.
    """
    parts = []
    for setting, members in groupby(sorted(results, key=_setting), _setting):
        found = _by_row(list(members), (trainer, ours))
        shown = ", ".join(f"{value:,} {name}" for name, value in zip(SETTING, setting, strict=True))
        devices = "; ".join(sorted({device for _, device in found}))
        parts.append(f"{devices}: {shown}\n\n{_each_seed(found)}\n\n{_summary(found, trainer, ours)}")
    return "\n\n".join(parts)


def _setting(result: Result) -> tuple[int, ...]:
    return tuple(result[name] for name in SETTING)


def _by_row(results: list[Result], first: tuple[str, ...]) -> Rows:
    """The results by contender and device, then by seed.

    Raises:
        SystemExit: a seed's texts are not the same for all.
    """
    found: Rows = {}
    drawn: dict[int, str] = {}
    for result in sorted(results, key=lambda result: [result["contender"] != name for name in first]):
        found.setdefault((result["contender"], result["device"]), {})[result["seed"]] = result
        if drawn.setdefault(result["seed"], result["drawn"]) != result["drawn"]:
            raise SystemExit(f"seed {result['seed']}: contenders with different texts in one file; take a new one")
    return found


def _names(found: Rows) -> list[str]:
    several = len({device for _, device in found}) > 1
    return [f"{contender} ({device})" if several else contender for contender, device in found]


def _each_seed(found: Rows) -> str:
    lines = [f"| seed | {' | '.join(_names(found))} |", "|---" * (len(found) + 1) + "|"]
    for seed in sorted({seed for row in found.values() for seed in row}):
        cells = [f"{row[seed]['accuracy']:.4f}" if seed in row else "" for row in found.values()]
        lines.append(f"| {seed} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _summary(found: Rows, trainer: str, ours: str) -> str:
    lines = [
        f"| contender | seeds | accuracy | points over {trainer} | points over {ours} | over uncached | seconds |"
        f" precision |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, ((contender, device), row) in zip(_names(found), found.items(), strict=True):
        accuracies, seconds = ([result[what] for result in row.values()] for what in ("accuracy", "seconds"))
        cells = [
            str(len(accuracies)), _spread(accuracies, statistics.mean(accuracies), ".4f"),
            *(_difference(row, _base(found, base, device)) for base in (trainer, ours, f"{contender}_uncached")),
            _spread(seconds, statistics.median(seconds), ".1f"),
            ", ".join(sorted({result["precision"] for result in row.values()})),
        ]  # fmt: skip
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _base(found: Rows, contender: str, device: str) -> dict[int, Result]:
    """The results of what is compared with, on the same device or else on another."""
    rows = {where: row for (name, where), row in found.items() if name == contender}
    return rows.get(device) or next(iter(rows.values()), {})


def _spread(values: Sequence[float], middle: float, shape: str) -> str:
    return f"{middle:{shape}} ({min(values):{shape}} to {max(values):{shape}})"


def _difference(one: dict[int, Result], other: dict[int, Result]) -> str:
    """The mean difference in points over the seeds that both have, with the paired 95% t-interval."""
    if one is other:
        return ""
    points = [100 * (one[seed]["accuracy"] - other[seed]["accuracy"]) for seed in sorted(set(one) & set(other))]
    if len(points) < 2:
        return ""
    low, high = interval(points)
    return f"{statistics.mean(points):+.2f} [{low:+.2f}, {high:+.2f}]"


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95% interval of the mean of at least two values by Student's t."""
    from scipy import stats

    half = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return statistics.mean(values) - half, statistics.mean(values) + half
