"""tuneline choose: checkpoints compared in one run, with a table, a picture and a recommendation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from tuneline.artifacts import PreparedData, write_json
from tuneline.config import Recipe
from tuneline.errors import InputError
from tuneline.search import report
from tuneline.search.choose import Candidate, Choosing, recommend
from tuneline.search.data import prepared
from tuneline.search.engine import Engine, configured
from tuneline_pipelines.searching import opened, searching
from tuneline_pipelines.show import show_table
from tuneline_pipelines.state import State
from tuneline_pipelines.watch import Tell

HEAD = ("model", "how", "rows", "validation {}", "LogME", "seconds", "ms a text", "MB")


@dataclass(frozen=True)
class Asked:
    """What the command was asked for.

    Attributes:
        recipe: what trainings share.
        models: names of checkpoints.
        metric: what decides: accuracy or macro_f1.
        share: of the training rows, in the last round.
        workers: trainings at a time.
    """

    recipe: Recipe
    models: list[str]
    metric: str
    share: float
    workers: int


def named(text: str) -> list[str]:
    """The checkpoints of `--models a,b,c`.

    Raises:
        InputError: fewer than two.
    """
    found = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if len(found) < 2:
        raise InputError(f"--models: {text!r} given; name two checkpoints or more, with commas between them")
    return found


def choose(asked: Asked, state: State, tell: Tell) -> dict[str, Any]:
    """Compare; the result is what `tuneline choose --json` prints.

    Raises:
        InputError: bad input, such as a checkpoint that is not there.
    """
    recipe = asked.recipe
    params = {"choose_models": ",".join(asked.models), "choose_metric": asked.metric}
    folder = state.home / "search" / "data"
    with searching(state, tell, "choose"):
        data: dict[str, Path] = {}
        for name in asked.models:
            own = configured(recipe, {"model.name": name})
            data[name] = prepared(own.data, own.model, folder, recipe.register_.name)
        with opened("choose", recipe, state, asked.workers, params) as engine:
            choosing = Choosing(recipe, asked.models, data, engine, folder, asked.metric,
                                lambda line: tell("choose", 0, 0, line), asked.share)  # fmt: skip
            found = choosing.run()
            manifest = PreparedData.load(data[asked.models[0]])
            taken, sentence = recommend(found, choosing.labels(), len(manifest.labels), asked.metric)
            result = {
                "status": "succeeded", "run_id": engine.run.run_id, "metric": asked.metric, "share": asked.share,
                "validation_rows": manifest.rows["validation"], "candidates": [one.row() for one in found],
                "ranking": [one.model for one in found if one.round], "seconds": choosing.seconds,
                "recommended": {"model": taken.model, "how": taken.how}, "sentence": sentence,
            }  # fmt: skip
            _publish(engine, found, result)
            return result


def _cells(one: Candidate, metric: str) -> list[str]:
    value = report.interval(*one.metrics[metric], digits=3)
    score = "" if one.score is None else f"{one.score:.3f}"
    latency = "" if one.latency_ms is None else f"{one.latency_ms:.1f}"
    size = "" if one.size_mb is None else f"{one.size_mb:.0f}"
    return [one.model, one.how, str(one.rows), value, score, f"{one.seconds:.1f}", latency, size]


def _publish(engine: Engine, found: list[Candidate], result: dict[str, Any]) -> None:
    metric = result["metric"]
    folder = engine.folder / engine.run.run_id
    folder.mkdir(parents=True, exist_ok=True)
    picture, page, facts = folder / "choose.png", folder / "choose.html", folder / "choose.json"
    names = [f"{Path(one.model).name}, {one.how}" for one in found]
    nothing = (0.0, 0.0, 0.0)
    panels = {
        f"validation {metric.replace('_', ' ')}": [one.metrics[metric] for one in found],
        "ms a text": [nothing if one.latency_ms is None else (one.latency_ms,) * 3 for one in found],
        "MB": [nothing if one.size_mb is None else (one.size_mb,) * 3 for one in found],
        "seconds": [(one.seconds,) * 3 for one in found],
    }
    report.draw_intervals(picture, names, panels)
    head = [name.format(metric) for name in HEAD]
    result["table"] = [_cells(one, metric) for one in found]
    tables = [report.Table("Candidates", head, result["table"], best_first=True)]
    report.write_page(page, "Which checkpoint", [result["sentence"], NOTE], picture, tables)
    result["page"] = str(page)
    write_json(facts, result)
    engine.run.artifacts(picture, page, facts)
    engine.run.headline({f"seconds_{name.replace('-', '_')}": value for name, value in result["seconds"].items()})


NOTE = (
    "The rows column says what each figure comes from: checkpoints that were given up early have seen fewer texts. "
    "ms a text is the network's alone, one text at a time, on this machine. The test split was not looked at."
)


def show(console: Console, result: dict[str, Any]) -> None:
    """The table and the recommendation."""
    show_table(console, [name.format(result["metric"]) for name in HEAD], result["table"], ("model", "how"), padding=2)
    console.print(result["sentence"], markup=False, soft_wrap=True)
    console.print(f"page      {result['page']}    or    tuneline ui", markup=False, soft_wrap=True)
