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
from tuneline.search.advice import recommend, settings
from tuneline.search.budget import Budget
from tuneline.search.choose import Candidate, Choosing
from tuneline.search.data import prepared
from tuneline.search.engine import Engine, configured
from tuneline_pipelines.searching import opened, searching
from tuneline_pipelines.show import show_table
from tuneline_pipelines.state import State
from tuneline_pipelines.watch import Tell

HEAD = ("model", "how", "rows", "validation {}", "LogME", "seconds", "ms a text", "MB")
PRICED = ("usd to train", "usd a million texts")


@dataclass(frozen=True)
class Asked:
    """What the command was asked for.

    Attributes:
        recipe: what trainings share.
        models: names of checkpoints.
        metric: what decides: accuracy or macro_f1.
        share: of the training rows, in the last round.
        workers: trainings at a time.
        budget: what may be spent; None for all that it takes.
        usd_per_hour: the machine's price; None where it is not known.
    """

    recipe: Recipe
    models: list[str]
    metric: str
    share: float
    workers: int
    budget: Budget | None = None
    usd_per_hour: float | None = None


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
    params = {"choose_models": ",".join(asked.models), "choose_metric": asked.metric,
              "choose_budget": asked.budget.text if asked.budget else ""}  # fmt: skip
    folder = state.home / "search" / "data"
    with searching(state, tell, "choose"):
        data: dict[str, Path] = {}
        for name in asked.models:
            own = configured(recipe, {"model.name": name})
            data[name] = prepared(own.data, own.model, folder, recipe.register_.name)
        with opened("choose", recipe, state, asked.workers, params) as engine:
            choosing = Choosing(recipe, asked.models, data, engine, folder, asked.metric,
                                lambda line: tell("choose", 0, 0, line), asked.share, asked.budget)  # fmt: skip
            found = choosing.run()
            manifest = PreparedData.load(data[asked.models[0]])
            taken, sentence = recommend(found, choosing.labels(), len(manifest.labels), asked.metric)
            result = {
                "status": "succeeded", "run_id": engine.run.run_id, "metric": asked.metric, "share": asked.share,
                "budget": asked.budget.text if asked.budget else None, "ended": choosing.ended or None,
                "validation_rows": manifest.rows["validation"],
                "candidates": [one.row() | _priced(one, asked.usd_per_hour) for one in found], "lost": choosing.lost,
                "ranking": [one.model for one in found if one.round], "seconds": choosing.seconds,
                "recommended": {"model": taken.model, "how": taken.how, "set": settings(taken)}, "sentence": sentence,
            }  # fmt: skip
            _publish(engine, found, result)
            return result


def _priced(one: Candidate, usd_per_hour: float | None) -> dict[str, float | None]:
    """What it costs at the machine's price: to train, and to answer a million texts one by one."""
    if not usd_per_hour:
        return dict.fromkeys(("usd_to_train", "usd_a_million_texts"))
    answers = None if one.latency_ms is None else usd_per_hour * one.latency_ms * 1000 / 3600
    return {"usd_to_train": usd_per_hour * one.seconds / 3600, "usd_a_million_texts": answers}


def _head(result: dict[str, Any]) -> list[str]:
    known = any(row["usd_to_train"] is not None for row in result["candidates"])
    return [name.format(result["metric"]) for name in (*HEAD, *(PRICED if known else ()))]


def _cells(row: dict[str, Any], metric: str) -> list[str]:
    value = report.interval(*row["metrics"][metric], digits=3)
    figures = ((row["score"], ".3f"), (row["seconds"], ".1f"), (row["latency_ms"], ".1f"), (row["size_mb"], ".1f"))
    prices = (f"{row[name]:.3g}" for name in ("usd_to_train", "usd_a_million_texts") if row[name] is not None)
    shown = ("" if of is None else f"{of:{how}}" for of, how in figures)
    return [row["model"], row["how"], str(row["rows"]), value, *shown, *prices]


def notes(result: dict[str, Any]) -> list[str]:
    """What is to be known beside the sentence: what was left out, and where the budget ended it."""
    told = [f"Left out: {name}: {why}." for name, why in result["lost"].items()]
    if result["ended"]:
        told.append(f"{result['ended']}: a larger one goes on from there, on more rows.")
    return told


def _publish(engine: Engine, found: list[Candidate], result: dict[str, Any]) -> None:
    metric = result["metric"]
    folder = engine.folder / engine.run.run_id
    folder.mkdir(parents=True, exist_ok=True)
    picture, page, facts = folder / "choose.png", folder / "choose.html", folder / "choose.json"
    short, rows = report.labels_of(list(dict.fromkeys(one.model for one in found))), result["candidates"]
    costs = {"ms a text": "latency_ms", "MB": "size_mb"}
    costs |= {"seconds to train": "seconds"} if rows[0]["usd_to_train"] is None else {"usd to train": "usd_to_train"}
    report.draw_tradeoffs(
        picture, [f"{short[one.model]}, {one.how}" for one in found], [one.how for one in found],
        [one.metrics[metric] for one in found], {title: [row[key] for row in rows] for title, key in costs.items()},
        f"validation {metric.replace('_', ' ')}",
    )  # fmt: skip
    taken = result["recommended"]
    rows = sorted(rows, key=lambda row: (row["model"], row["how"]) != (taken["model"], taken["how"]))  # it stands first
    result["table"] = [_cells(row, metric) for row in rows]
    tables = [report.Table("Candidates", _head(result), result["table"], best_first=True)]
    report.write_page(page, "Which checkpoint", [result["sentence"], *notes(result), NOTE], picture, tables)
    result["page"] = str(page)
    write_json(facts, result)
    engine.run.artifacts(picture, page, facts)
    engine.run.headline({f"seconds_{name.replace('-', '_')}": value for name, value in result["seconds"].items()})


NOTE = (
    "The rows column says what each figure comes from: checkpoints that were given up early have seen fewer texts. "
    "Each is trained with one seed; intervals are of the validation rows. ms a text is the network's alone (of the "
    "baseline, all that it does), one text at a time, on this machine. The test split was not looked at."
)


def show(console: Console, result: dict[str, Any]) -> None:
    """The table and the recommendation."""
    show_table(console, _head(result), result["table"], ("model", "how"), padding=2)
    for line in (*notes(result), result["sentence"]):
        console.print(line, markup=False, soft_wrap=True)
    if what := result["recommended"]["set"]:
        console.print(f"set       {what}", markup=False, soft_wrap=True)
    console.print(f"page      {result['page']}    or    tuneline ui", markup=False, soft_wrap=True)
