"""The pictures of the page: what each way of tuning gives for its seconds, and what few labels leave of it.

Without a ground of their own and in tones that stand out from white and from black alike.
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from statistics import fmean
from typing import Any

from tests.benchmarks.results.numbers import FEW_MODES, Found, Row
from tests.benchmarks.results.plan import ALL, BITFIT, HEAD, LINEAR, LORA, SCENARIOS, TOP

INK, FAINT = "#6e7781", "#8c959f55"
COLOURS = {LINEAR: "#8a8f98", HEAD: "#1f8fd6", TOP: "#12986f", LORA: "#b266d9", BITFIT: "#c98500", ALL: "#e0533d"}
NAMES = {LINEAR: "linear", HEAD: "head", TOP: "top 2 layers", LORA: "LoRA", BITFIT: "BitFit", ALL: "all"}
CROWDED = 2.0
"""Points within this factor of the longest seconds crowd."""
STYLE = {
    "svg.fonttype": "path", "svg.hashsalt": "tuneline", "font.size": 9, "text.color": INK, "axes.labelcolor": INK,
    "xtick.color": INK, "ytick.color": INK, "axes.edgecolor": FAINT, "axes.titlecolor": INK, "axes.titlesize": 10,
    "savefig.transparent": True, "figure.facecolor": "none", "axes.facecolor": "none",
}  # fmt: skip


def tuning(found: Found, path: Path) -> Path:
    """Accuracy against seconds of training, a panel a task."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 6.4), layout="constrained")
        for axes, (name, rows) in zip(figure.subplots(2, 2).flat, found.rows.items(), strict=True):
            _panel(axes, name, [row for row in rows if row.mode in NAMES])
        figure.supxlabel("seconds of training on one core", fontsize=9)
        figure.supylabel("accuracy on test texts, 95% interval, %", fontsize=9)
        return _save(figure, path)


def _panel(axes: Any, name: str, rows: list[Row]) -> None:
    from matplotlib.ticker import FuncFormatter

    texts = max((row.texts for row in rows), default=0)
    axes.set_title(f"{SCENARIOS[name].title.split(',')[0]}, {texts:,} training texts", loc="left")
    axes.set_xscale("log")
    tuned = [row for row in rows if row.mode != LINEAR]
    for row in tuned:
        value, low, high = (100 * end for end in row.score["accuracy"])
        colour = COLOURS[row.mode]
        axes.errorbar(row.seconds, value, [[value - low], [high - value]], fmt="o", ms=6, lw=1.6, color=colour)
    if linear := next((row for row in rows if row.mode == LINEAR), None):
        value, low, high = (100 * end for end in linear.score["accuracy"])
        axes.axhspan(low, high, color=COLOURS[LINEAR], alpha=0.16, lw=0)
        axes.axhline(value, color=COLOURS[LINEAR], lw=1.2, ls=(0, (4, 3)))
    _limits(axes, rows)
    _labels(axes, tuned, linear)
    axes.grid(axis="y", color=FAINT, lw=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:g}" if str(f"{value:g}")[0] in "25" else ""))


def _limits(axes: Any, rows: list[Row]) -> None:
    """Room at the right for the names, and above and below for the intervals."""
    seconds = [row.seconds for row in rows if row.mode != LINEAR] or [1, 10]
    axes.set_xlim(min(seconds) / 1.35, max(seconds) * 2.1)
    ends = [100 * end for row in rows for end in row.score["accuracy"]] or [0, 100]
    room = 0.08 * (max(ends) - min(ends) or 1)
    axes.set_ylim(min(ends) - room, max(ends) + room)


def _labels(axes: Any, rows: list[Row], linear: Row | None) -> None:
    """A name beside each point; where points crowd at the right the names stand in a column, a thin line to each."""
    low, high = axes.get_ylim()
    left, right = axes.get_xlim()
    last = max((row.seconds for row in rows), default=1)
    crowd = [row for row in rows if row.seconds > last / CROWDED]
    places = apart([100 * row.score["accuracy"][0] for row in crowd], 0.075 * (high - low))
    for row in rows:
        value, colour = 100 * row.score["accuracy"][0], COLOURS[row.mode]
        if row in crowd and len(crowd) > 1:
            at, beside, aside = places[crowd.index(row)], last * 1.3, 3
            axes.plot([row.seconds, beside], [value, at], color=colour, lw=0.8, alpha=0.6)
        else:
            reach = row.seconds * (right / left) ** (0.05 + 0.021 * len(NAMES[row.mode]))
            at, beside, aside = value, row.seconds, -7 if _meets(rows, row, reach) else 7
        axes.annotate(NAMES[row.mode], (beside, at), xytext=(aside, 0), ha="left" if aside > 0 else "right",
                      va="center", textcoords="offset points", color=colour, fontweight="bold")  # fmt: skip
    if linear:
        value = 100 * linear.score["accuracy"][0]
        taken = any(
            row.seconds < left * (right / left) ** 0.4
            and abs(100 * row.score["accuracy"][0] - value) < 0.1 * (high - low)
            for row in rows
        )
        axes.annotate("linear baseline", (right if taken else left, value), xytext=(-4 if taken else 4, 3), fontsize=8,
                      textcoords="offset points", ha="right" if taken else "left")  # fmt: skip


def _meets(rows: list[Row], named: Row, reach: float) -> bool:
    """Whether a name at the right of its point, to where it reaches, would run into another's interval."""
    value = named.score["accuracy"][0]
    return any(
        named.seconds < row.seconds < reach and row.score["accuracy"][1] <= value <= row.score["accuracy"][2]
        for row in rows
    )


def apart(values: list[float], least: float) -> list[float]:
    """Places near the values, in their order, that are no nearer to each other than that."""
    order = sorted(range(len(values)), key=values.__getitem__)
    found = list(values)
    for _ in range(50):  # neighbours push each other off, by halves
        for below, above in itertools.pairwise(order):
            short = least - (found[above] - found[below])
            if short > 1e-9:
                found[below] -= short / 2
                found[above] += short / 2
    return found


def labels(found: Found, path: Path) -> Path:
    """Accuracy against the number of training texts, each draw a dot, a line through the means."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullFormatter

    tasks = found.curves()
    with mpl.rc_context(STYLE):
        columns = len(tasks) if len(tasks) < 4 else 2
        rows_of = math.ceil(len(tasks) / columns)
        figure = Figure(figsize=(3.6 * columns + 1, 3.2 * rows_of), layout="constrained")
        for axes, name in zip(figure.subplots(rows_of, columns, squeeze=False).flat, tasks, strict=False):
            rows = [row for row in found.few if row.scenario == name]
            ends = {mode: 100 * fmean(values.values()) for mode in FEW_MODES if (values := rows[-1].accuracy.get(mode))}
            room = 0.012 * max(ends.values(), default=1) + 3
            places = dict(zip(ends, apart(list(ends.values()), room), strict=True))
            for mode in FEW_MODES:
                points = [(row.texts, list(row.accuracy.get(mode, {}).values())) for row in rows]
                _line(axes, points, mode, places.get(mode))
            axes.set_title(SCENARIOS[name].title.split(",")[0], loc="left")
            axes.set_xscale("log")
            axes.set_xlim(rows[0].texts / 1.2, rows[-1].texts * 1.9)
            axes.set_xticks([row.texts for row in rows])
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.set(xlabel="training texts", ylabel="accuracy on test texts, %")
            axes.grid(axis="y", color=FAINT, lw=0.6)
            axes.spines[["top", "right"]].set_visible(False)
        return _save(figure, path)


def _line(axes: Any, points: list[tuple[int, list[float]]], mode: str, name_at: float | None) -> None:
    kept = [(texts, values) for texts, values in points if values]
    if not kept:
        return
    dots = [(texts, 100 * value) for texts, values in kept for value in values]
    axes.plot([dot[0] for dot in dots], [dot[1] for dot in dots], ls="", marker="o", ms=3.5, alpha=0.55,
              color=COLOURS[mode])  # fmt: skip
    means = [(texts, 100 * fmean(values)) for texts, values in kept]
    axes.plot([texts for texts, _ in means], [mean for _, mean in means], lw=1.8, color=COLOURS[mode])
    at = means[-1][1] if name_at is None else name_at
    axes.annotate(NAMES[mode], (means[-1][0], at), xytext=(8, 0), textcoords="offset points", va="center",
                  fontweight="bold", color=COLOURS[mode])  # fmt: skip


def _save(figure: Any, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=110)
    return path
