"""tuneline compare: two versions or runs beside each other and, on the same test rows, how sure the difference is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from tuneline import lineage, registry
from tuneline.errors import InputError
from tuneline.tracking import client
from tuneline_pipelines.state import open_state

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from tuneline.predictions import Predictions

_PREFIX = "tuneline.metric."


@dataclass(frozen=True)
class Side:
    """One of the two: how it was named, its metrics, and its answers where they were stored."""

    name: str
    metrics: dict[str, float]
    predictions: Predictions | None


def compare(first: str, second: str) -> dict[str, Any]:
    """Set two models beside each other.

    Args:
        first: MODEL/VERSION, MODEL@alias, or the id of a run or its beginning.
        second: the other.

    Returns:
        first, second (their names); metrics, by name, of both; paired, what their answers on the same test rows tell
        (rows, only_first_right, only_second_right, accuracy_difference, macro_f1_difference with value, low and high,
        p_value; the difference is second minus first), or null; note, why there is none.

    Raises:
        InputError: no such version or run.
    """
    open_state()
    api = client()
    sides = [_side(api, first), _side(api, second)]
    names = [name for name in sides[0].metrics if name in sides[1].metrics]
    result = {
        "first": sides[0].name,
        "second": sides[1].name,
        "metrics": {name: [side.metrics[name] for side in sides] for name in sorted(names)},
    }
    paired, note = _paired(*sides)
    return result | {"paired": paired, "note": note}


def _side(api: MlflowClient, named: str) -> Side:
    if "@" in named or "/" in named:
        version = registry.find(named)
        metrics = {
            key.removeprefix(_PREFIX): float(value) for key, value in version.tags.items() if key.startswith(_PREFIX)
        }
        return Side(f"{version.name}/{version.version}", metrics, lineage.predictions_of(api, version))
    run = lineage.run_of(api, _whole(api, named))
    if run is None:
        raise InputError(f"{named}: no run of that id; `tuneline runs` lists them; a version is MODEL/VERSION")
    return Side(run.info.run_id[:8], dict(run.data.metrics), lineage.predictions_of_run(api, run))


def _whole(api: MlflowClient, named: str) -> str | None:
    """The id of the run whose id begins so, as `tuneline runs` shows it."""
    if len(named) >= 32 or not named.isalnum():
        return named
    experiments = [found.experiment_id for found in api.search_experiments()]
    found = [
        run.info.run_id for run in api.search_runs(experiments, f"attributes.run_id LIKE '{named}%'", max_results=2)
    ]
    if len(found) > 1:
        raise InputError(f"{named}: the beginning of several runs; give more of the id")
    return found[0] if found else None


def _paired(first: Side, second: Side) -> tuple[dict[str, Any] | None, str]:
    """What the answers of both on the same rows tell, or why they tell nothing."""
    from tuneline.comparison import compare as paired

    for side in (first, second):
        if side.predictions is None:
            return None, f"{side.name} has no stored answers; no paired test"
    a, b = first.predictions, second.predictions
    assert a is not None and b is not None  # noqa: S101
    try:
        answers = b.answers_of(a)
    except InputError as error:
        return None, str(error)
    found = paired(b.labels, b.answers, answers, len(b.names))
    return {
        "rows": found.rows,
        "only_first_right": found.losses,
        "only_second_right": found.wins,
        "accuracy_difference": found.difference()._asdict(),
        "macro_f1_difference": found.difference("macro_f1")._asdict(),
        "p_value": found.p_value,
    }, ""


def show(console: Console, found: dict[str, Any]) -> None:
    """A row a metric, and the paired test below."""
    table = Table(box=None, padding=(0, 1, 0, 0))
    for title in ("metric", found["first"], found["second"], "difference"):
        table.add_column(title, overflow="fold")
    for name, (first, second) in found["metrics"].items():
        table.add_row(name.replace("_", " "), f"{first:.4g}", f"{second:.4g}", f"{second - first:+.4g}")
    console.print(table)
    if (paired := found["paired"]) is None:
        console.print(found["note"], markup=False, highlight=False, soft_wrap=True)
        return
    lines = [
        f"on the same {paired['rows']} test rows, {found['second']} minus {found['first']} (95% intervals):",
        f"accuracy  {_interval(paired['accuracy_difference'])}, exact McNemar p = {paired['p_value']:.3g}",
        f"          right alone: {found['first']} on {paired['only_first_right']} rows, {found['second']} on "
        f"{paired['only_second_right']}",
        f"macro F1  {_interval(paired['macro_f1_difference'])}",
    ]
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _interval(estimate: dict[str, float]) -> str:
    return f"{estimate['value']:+.4f} [{estimate['low']:+.4f}, {estimate['high']:+.4f}]"
