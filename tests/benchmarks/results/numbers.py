"""What the lines of a results file say: means over seeds with intervals, and differences on the same rows."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median

from tests.benchmarks.results.job import Line, unpacked
from tests.benchmarks.results.plan import (
    ALL,
    FEW,
    HEAD,
    LINEAR,
    MODES,
    ROWS,
    SCENARIOS,
    SEEDS,
    TIMED,
    TREATMENTS,
    Job,
    Tried,
    chosen,
    jobs,
    tried,
)
from tests.benchmarks.seed_tables import known
from tuneline.search.paired import Interval, Resampled, of_answers

SCORES = ("accuracy", "macro_f1")


@dataclass(frozen=True)
class Row:
    """A way of tuning on one task.

    Attributes:
        mode: its name.
        seeds: how many trainings.
        texts: training texts.
        score: accuracy and macro_f1, over test rows and seeds.
        over_linear: the differences from the linear baseline on the same rows; empty for itself.
        over_all: those from full fine-tuning, of the seeds that both have.
        in_scope: accuracy on the rows that belong to a class, where some do not.
        seconds: of training, median.
        peak_mib: most memory in training, median.
        latency_ms: processor time of one text alone, median; of the TIMED modes, else nan.
        texts_per_second: answered, median.
        command: that gives the first seed.
    """

    mode: str
    seeds: int
    texts: int
    score: dict[str, Interval]
    over_linear: dict[str, Interval]
    over_all: dict[str, Interval]
    in_scope: float | None
    seconds: float
    peak_mib: float
    latency_ms: float
    texts_per_second: float
    command: str


@dataclass(frozen=True)
class FewRow:
    """A task with few labels: accuracies by mode, a draw each.

    Attributes:
        scenario: the task.
        texts: training texts.
        accuracy: by mode, then by seed.
        commands: that give the first seed, by mode.
    """

    scenario: str
    texts: int
    accuracy: dict[str, dict[int, float]]
    commands: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """All that the page tells.

    Attributes:
        rows: of each scenario, in the order of MODES.
        tests: test texts of each scenario.
        few: the cases with few labels.
        rates: lines of the trainings that chose learning rates.
        lacking: jobs that have no line yet.
        machines: what measured, and how many jobs.
        imbalance: the line of the treatments of unequal classes.
    """

    rows: dict[str, list[Row]]
    tests: dict[str, int]
    few: list[FewRow]
    rates: list[Tried]
    lacking: list[Job]
    machines: Counter[str] = field(default_factory=Counter)
    imbalance: Line | None = None

    def row(self, scenario: str, mode: str) -> Row | None:
        """The row, where it was measured."""
        return next((row for row in self.rows[scenario] if row.mode == mode), None)

    def curves(self) -> list[str]:
        """Tasks that were measured with several numbers of labels."""
        return [name for name in SCENARIOS if len({row.texts for row in self.few if row.scenario == name}) > 1]


def read(path: Path, seeds: int = SEEDS) -> Found:
    """Lines of the jobs that the plan names; those of other sizes or settings are passed over.

    Raises:
        SystemExit: a scenario's lines are of different test rows.
    """
    lines = known(path)
    wanted = jobs((ROWS, FEW), list(SCENARIOS), list(MODES), seeds, chosen(lines))
    by_key = {(line["part"], line["mode"], line["command"]): line for line in lines}
    have = [(job, by_key[job.key]) for job in wanted if job.key in by_key]
    of_rows: dict[str, dict[str, list[Line]]] = {name: {} for name in SCENARIOS}
    for job, line in have:
        if job.part == ROWS:
            of_rows[job.scenario].setdefault(job.mode, []).append(line)
    return Found(
        {name: _rows(of_mode) for name, of_mode in of_rows.items()},
        {name: next(iter(of_mode.values()))[0]["rows"]["test"] for name, of_mode in of_rows.items() if of_mode},
        _few([line for job, line in have if job.part == FEW]),
        tried(lines),
        [job for job in wanted if job.key not in by_key],
        Counter(line["machine"] for _, line in have), by_key.get(TREATMENTS.key),
    )  # fmt: skip


def _rows(of_mode: dict[str, list[Line]]) -> list[Row]:
    sums = {line["test_sha256"] for lines in of_mode.values() for line in lines}
    if len(sums) > 1:
        raise SystemExit(f"{of_mode.popitem()[1][0]['scenario']}: results of different test rows in one file")
    return [_row(mode, of_mode) for mode in MODES if mode in of_mode]


def _row(mode: str, of_mode: dict[str, list[Line]]) -> Row:
    lines = of_mode[mode]
    first, linear = lines[0], of_mode.get(LINEAR)
    rivals = [linear * len(lines)] if linear and mode != LINEAR else []
    scored = _resampled([lines, *rivals])
    seeds = {line["seed"] for line in lines} & {line["seed"] for line in of_mode.get(ALL, ())}
    both = [[line for line in of_mode[name] if line["seed"] in seeds] for name in (mode, ALL)] if seeds else []
    paired = _resampled(both) if seeds and mode not in (ALL, LINEAR) else None
    return Row(
        mode, len(lines), first["rows"]["train"], {name: scored[name].interval(0) for name in SCORES},
        {name: scored[name].difference(0, 1) for name in SCORES} if rivals else {},
        {name: paired[name].difference(0, 1) for name in SCORES} if paired else {},
        _in_scope(lines), *(median(line[name] for line in lines) for name in ("seconds", "peak_mib")),
        median(line["latency_ms"] for line in lines) if mode in TIMED else math.nan,
        median(line["texts_per_second"] for line in lines), first["command"],
    )  # fmt: skip


def _resampled(models: Sequence[Sequence[Line]]) -> dict[str, Resampled]:
    """Models whose lines are seeds, drawn again together."""
    import numpy as np

    answers = np.stack([np.stack([unpacked(line["answers"]) for line in lines]) for lines in models])
    first = models[0][0]
    return of_answers(unpacked(first["labels"]), answers, first["classes"])


def _in_scope(lines: Sequence[Line]) -> float | None:
    if lines[0]["outside"] is None:
        return None
    labels = unpacked(lines[0]["labels"])
    inside = labels != lines[0]["outside"]
    return fmean(float((unpacked(line["answers"]) == labels)[inside].mean()) for line in lines)


def _few(lines: Sequence[Line]) -> list[FewRow]:
    found: dict[tuple[str, int], FewRow] = {}
    for line in lines:
        at = line["scenario"], line["rows"]["train"]
        row = found.setdefault(at, FewRow(*at, {}))
        row.accuracy.setdefault(line["mode"], {})[line["seed"]] = line["metrics"]["accuracy"][0]
        row.commands.setdefault(line["mode"], line["command"])
    return [found[at] for at in sorted(found)]


def ahead(row: FewRow, mode: str, other: str) -> tuple[int, int] | None:
    """In how many draws a mode was ahead of another, and of how many; None where none has both."""
    both = row.accuracy.get(mode, {}).keys() & row.accuracy.get(other, {}).keys()
    won = sum(row.accuracy[mode][seed] > row.accuracy[other][seed] for seed in both)
    return (won, len(both)) if both else None


def verdict(interval: Interval) -> str:
    """What a difference and its interval say: more, less, or within chance."""
    _, low, high = interval
    return "more" if low > 0 else "less" if high < 0 else "chance"


FEW_MODES = (LINEAR, HEAD, ALL)
