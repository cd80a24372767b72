"""What a search found as a picture and as one self-contained page."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneline.evaluate.matrix import plain

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{{ title }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #ddd; text-align: left; vertical-align: top }
th { border-bottom: 2px solid #999 } caption { text-align: left; font-weight: 600; padding: .3rem 0 }
img { max-width: 100% } .first td { background: #eef4fb }
</style>
<h1>{{ title }}</h1>
{% for line in told %}<p>{{ line }}</p>
{% endfor %}
<img alt="{{ title }}" src="data:image/png;base64,{{ picture }}">
{% for table in tables %}
<table><caption>{{ table.caption }}</caption>
<tr>{% for name in table.head %}<th>{{ name }}</th>{% endfor %}</tr>
{% for row in table.rows %}<tr{% if loop.first and table.best_first %} class="first"{% endif %}>
{%- for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table>
{% endfor %}
</html>
"""
COLOURS = ("#1f5fa8", "#c2571a", "#2f7d4f", "#8a3fa0", "#6b6b6b")


@dataclass(frozen=True)
class Table:
    """A table of a page; the best row stands first where `best_first`."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    best_first: bool = False


def write_page(path: Path, title: str, told: Sequence[str], picture: Path, tables: Sequence[Table]) -> None:
    """Render the page; every value is escaped."""
    from jinja2 import Environment

    template = Environment(autoescape=True, trim_blocks=True).from_string(PAGE)
    drawn = base64.b64encode(picture.read_bytes()).decode()
    path.write_text(template.render(title=title, told=told, picture=drawn, tables=tables), encoding="utf-8")


def spell(overrides: dict[str, Any]) -> str:
    """Overrides as one would type them."""
    return " ".join(f"{key}={value}" for key, value in overrides.items())


def interval(value: float, low: float, high: float, digits: int = 4) -> str:
    """A figure with its interval."""
    return f"{value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def signed(difference: Sequence[float]) -> str:
    """A difference with its interval."""
    value, low, high = difference
    return f"{value:+.4f} ({low:+.4f} to {high:+.4f})"


def labels_of(names: Sequence[str]) -> dict[str, str]:
    """The last part of each path, or all of it where two end alike."""
    short = [Path(name).name for name in names]
    return {name: part if short.count(part) == 1 else name for name, part in zip(names, short, strict=True)}


def front(points: Sequence[tuple[float, float]], minimal: bool = False) -> list[int]:
    """Which points (seconds, score) no other one beats in both, the quickest first."""
    sign = 1 if minimal else -1
    order = sorted(range(len(points)), key=lambda index: (points[index][0], sign * points[index][1]))
    found: list[int] = []
    for index in order:
        if not found or sign * points[index][1] < sign * points[found[-1]][1]:
            found.append(index)
    return found


def draw_front(
    path: Path, points: Sequence[tuple[float, float]], groups: Sequence[str], best: int, metric: str
) -> None:
    """A PNG: the validation score over the seconds of training, a dot a trial, with the Pareto front.

    Args:
        path: where to.
        points: seconds and score of each trial.
        groups: what each is coloured by.
        best: which one won.
        metric: its name.
    """
    figure, axes = new_figure()
    names = list(dict.fromkeys(groups))
    for name, colour in zip(names, [*COLOURS, *["#999"] * len(names)], strict=False):
        of = [point for point, group in zip(points, groups, strict=True) if group == name]
        axes.scatter(*zip(*of, strict=True), color=colour, s=28, label=name, alpha=0.8)
    at = front(points, minimal=metric == "loss")
    axes.step(
        *zip(*(points[index] for index in at), strict=True), where="post", color="#444", lw=1, label="Pareto front"
    )
    axes.scatter(*points[best], s=150, facecolors="none", edgecolors="#b3261e", linewidths=2, label="winner")
    axes.set(xlabel="seconds of training", ylabel=f"validation {metric.replace('_', ' ')}")
    _logarithmic(axes)
    axes.legend(fontsize=8)
    finish(figure, path)


def draw_intervals(
    path: Path, names: Sequence[str], panels: Mapping[str, Sequence[tuple[float, ...]]], height: float = 0.45
) -> None:
    """A PNG: a panel a metric, in it a dot with its interval for each name, the first name on top."""
    from matplotlib import pyplot as plt

    plt.switch_backend("Agg")
    figure, axes = plt.subplots(1, len(panels), figsize=(2 + 3.3 * len(panels), 1.2 + height * len(names)), sharey=True,
                                squeeze=False, layout="constrained")  # fmt: skip
    places = list(range(len(names)))
    for at, (title, values) in zip(axes[0], panels.items(), strict=True):
        for place, (value, low, high) in zip(places, values, strict=True):
            at.plot([low, high], [place, place], color=COLOURS[0], lw=2, alpha=0.5)
            at.plot([value], [place], "o", color=COLOURS[0])
        at.set_title(title, fontsize=10)
        at.grid(axis="x", alpha=0.3)
    axes[0][0].set_yticks(places, [plain(name) for name in names])
    axes[0][0].invert_yaxis()
    finish(figure, path)


def draw_tradeoffs(
    path: Path, names: Sequence[str], kinds: Sequence[str], quality: Sequence[tuple[float, ...]],
    costs: Mapping[str, Sequence[float | None]], title: str,
) -> None:  # fmt: skip
    """A PNG: quality with its interval over each cost, a panel a cost, and a list of what their numbers stand for.

    Args:
        path: where to.
        names: of the points.
        kinds: what each is coloured by.
        quality: value, low and high of each.
        costs: of each, None where it has none, by what the axis says.
        title: of the quality.
    """
    from matplotlib import pyplot as plt
    from matplotlib.lines import Line2D

    plt.switch_backend("Agg")
    height = max(4.0, 0.24 * len(names) + 1)
    figure, axes = plt.subplots(1, len(costs), figsize=(3.4 * len(costs) + 4, height), sharey=True, squeeze=False,
                                layout="constrained")  # fmt: skip
    colours = dict(zip(dict.fromkeys(kinds), COLOURS, strict=False))
    for at, (name, values) in zip(axes[0], costs.items(), strict=True):
        for number, (cost, kind, (value, low, high)) in enumerate(zip(values, kinds, quality, strict=True), start=1):
            if cost is not None:
                arms = [[max(value - low, 0.0)], [max(high - value, 0.0)]]  # not negative by rounding
                at.errorbar(cost, value, arms, fmt="o", ms=5, lw=1.2, color=colours[kind])
                at.annotate(str(number), (cost, value), (5, 4), textcoords="offset points", fontsize=8)
        at.set(xlabel=name)
        _logarithmic(at)
        at.margins(0.12)
        at.grid(alpha=0.3)
    axes[0][0].set_ylabel(title)
    lines = [Line2D([], [], marker="o", lw=0, color=colours[kind], label=f"{number}  {plain(name)}")
             for number, (name, kind) in enumerate(zip(names, kinds, strict=True), start=1)]  # fmt: skip
    figure.legend(handles=lines, loc="outside right upper", fontsize=8, frameon=False)
    finish(figure, path)


def _logarithmic(axes: Any) -> None:
    """Make the x axis logarithmic, with figures as people write them (20, not 2 x 10^1)."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def new_figure() -> tuple[Any, Any]:
    """An empty picture."""
    from matplotlib import pyplot as plt

    plt.switch_backend("Agg")
    return plt.subplots(figsize=(7.5, 5), layout="constrained")


def finish(figure: Any, path: Path) -> None:
    """Write it."""
    from matplotlib import pyplot as plt

    figure.savefig(path, dpi=110)
    plt.close(figure)
