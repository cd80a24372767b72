"""tuneline imbalance: every treatment of unequal classes in one run, a table, a picture and a recommendation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.console import Console

from tuneline.artifacts import write_json
from tuneline.config import Recipe
from tuneline.errors import InputError
from tuneline.search import report
from tuneline.search.data import folds, prepared
from tuneline.search.engine import Engine
from tuneline.search.imbalance import METRICS, MOST_CLASSES, Trained, compare, recommend, refuse_unheld, train_all
from tuneline_pipelines.searching import counter, opened, searching
from tuneline_pipelines.show import show_table
from tuneline_pipelines.state import State
from tuneline_pipelines.watch import Tell


@dataclass(frozen=True)
class Asked:
    """What the command was asked for.

    Attributes:
        recipe: what trainings share.
        seeds: trainings of each treatment.
        folds: parts that are held out in turn; 0 takes the validation split.
        metric: what the recommendation goes by.
        workers: trainings at a time.
    """

    recipe: Recipe
    seeds: int
    folds: int
    metric: str
    workers: int


def imbalance(asked: Asked, state: State, tell: Tell) -> dict[str, Any]:
    """Train and compare; the result is what `tuneline imbalance --json` prints.

    Raises:
        InputError: bad input.
    """
    recipe = asked.recipe
    if asked.folds and recipe.data.group_column:
        raise InputError(
            f"--folds: {asked.folds} given with data.group_column={recipe.data.group_column}; folds would part the "
            f"rows of a group; take --folds 0, the validation split, which does not"
        )
    params = {"imbalance_seeds": asked.seeds, "imbalance_folds": asked.folds, "imbalance_metric": asked.metric}
    folder = state.home / "search" / "data"
    with searching(state, tell, "imbalance"):
        data = prepared(recipe.data, recipe.model, folder, recipe.register_.name)
        parts = folds(data, asked.folds, folder) if asked.folds else [data]
        refuse_unheld(parts, asked.metric)
        with opened("imbalance", recipe, state, asked.workers, params) as engine:
            found = train_all(recipe, parts, asked.seeds, engine, counter(tell, "imbalance", "trainings"))
            tell("imbalance", 0, 0, "intervals")
            rows = compare(found)
            rare, held_out = found.names[found.rare], int((found.labels == found.rare).sum())
            choice, sentence = recommend(rows, asked.metric, rare)
            result = {
                "status": "succeeded", "run_id": engine.run.run_id, "metric": asked.metric, "seeds": asked.seeds,
                "folds": asked.folds, "held_out_rows": len(found.labels), "rarest": rare,
                "rows_of_rarest": {"train": found.counts[found.rare], "held_out": held_out},
                "not_held_out": found.unheld, "classes": len(found.names), "lost": found.lost, "treatments": rows,
                "recommended": choice, "sentence": sentence,
            }  # fmt: skip
            _publish(engine, found, result)
            return result


def _cells(row: dict[str, Any]) -> list[str]:
    figures = [report.interval(*row[metric], digits=3) for metric in METRICS]
    return [row["treatment"], *figures, f"{row['difference']['macro_f1'][0]:+.4f}", f"{row['seconds']:.1f}"]


def _head(rare: str) -> list[str]:
    return ["treatment", "macro F1", f"average precision, {rare}", f"recall, {rare}", "macro F1 over plain", "seconds"]


def _publish(engine: Engine, found: Trained, result: dict[str, Any]) -> None:
    rows, rare = result["treatments"], result["rarest"]
    folder = engine.folder / engine.run.run_id
    folder.mkdir(parents=True, exist_ok=True)
    picture, page, facts = folder / "imbalance.png", folder / "imbalance.html", folder / "imbalance.json"
    panels = {title: [row[metric] for row in rows] for metric, title in zip(METRICS, _head(rare)[1:4], strict=True)}
    report.draw_intervals(picture, [row["treatment"] for row in rows], panels)
    recalls = [[name, str(count), *(report.interval(*row["per_class_recall"][name]) for row in rows)]
               for name, count in zip(found.names, found.counts, strict=True)]  # fmt: skip
    per_class = report.Table(
        "Recall of each class", ["class", "training rows", *(r["treatment"] for r in rows)], recalls
    )
    tables = [report.Table("Treatments", _head(rare), [_cells(row) for row in rows]), per_class]
    report.write_page(page, "Unequal classes", [result["sentence"], about(result)], picture, tables)
    write_json(facts, result)
    engine.run.artifacts(picture, page, facts)
    engine.run.headline({f"{row['treatment']}_{metric}": row[metric][0] for row in rows for metric in METRICS})
    result["page"] = str(page)


def about(result: dict[str, Any]) -> str:
    """What the figures are of."""
    held = f"pooled over {result['folds']} folds" if result["folds"] else "of the validation split"
    rows, unheld = result["rows_of_rarest"], ", ".join(map(repr, result["not_held_out"]))
    many = result["seeds"] > 1
    seeds = f"Means over {result['seeds']} seeds" if many else "One seed"
    over = "over rows and seeds" if many else "over rows; what another seed gives is not in them"
    more = [f"No row of {unheld} is held out, so that nothing is told of it; --folds 5 would."] if unheld else []
    if result["classes"] > MOST_CLASSES:
        more.append(f"Thresholds are not tried with more than {MOST_CLASSES} classes.")
    more += [f"Left out: {name}: {why}." for name, why in result["lost"].items()]
    return " ".join([
        f"{seeds} on {result['held_out_rows']} rows {held}, of which {rows['held_out']} are "
        f"{result['rarest']!r} ({rows['train']} in training); 95% intervals {over}; the recommendation's are for all "
        f"comparisons at once. The test split was not looked at.", *more,
    ])  # fmt: skip


def show(console: Console, result: dict[str, Any]) -> None:
    """The table and the recommendation."""
    rows = [_cells(row) for row in result["treatments"]]
    show_table(console, _head(result["rarest"]), rows, ("treatment",), padding=2)
    console.print(about(result), markup=False, soft_wrap=True)
    console.print(result["sentence"], markup=False, soft_wrap=True)
    console.print(f"page      {result['page']}    or    tuneline ui", markup=False, soft_wrap=True)
