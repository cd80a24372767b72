"""What a sweep found: the winner as a recipe, picture and page of the Pareto front, all of it on the MLflow run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tuneline.artifacts import write_json
from tuneline.search import report, study
from tuneline.search.finals import trained
from tuneline.search.space import winner
from tuneline.search.sweep import Sweep

NOTE = "All figures are of the validation split, which the winner was chosen by; the test split was not looked at."
PICTURE, PAGE, ROWS = "pareto.png", "sweep.html", "trials.json"
"""Files of the search's folder."""
WINNER = "# The winner of tuneline sweep"
"""How a recipe that a sweep wrote begins."""


def conclude(search: Sweep, name: str, output: Path) -> dict[str, Any]:
    """Write the winner's recipe, picture and page, and store them on the run.

    Args:
        search: over.
        name: of its study.
        output: where to write the recipe.

    Returns:
        The result, as `tuneline sweep --json` prints it.

    Raises:
        InputError: no trial was trained to its end.
    """
    trials, standings = rows_of(search), search.standings()
    count = study.count(search.study)
    result: dict[str, Any] = {
        "status": "succeeded", "study": name, "run_id": search.engine.run.run_id, "metric": search.settings.metric,
        "budget": search.budget.text, "seconds": round(search.clock.elapsed, 1), "trials": trials,
        "finalists": standings, "best": None, "counts": {**count.__dict__, "finals": trained(search.study)},
    }  # fmt: skip
    best = standings[0]
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(_recipe(search, best, name), encoding="utf-8")
    result["best"] = best | {"recipe": str(output)}
    result["sentence"] = sentence(result)
    _publish(search, result, output)
    return result


def _recipe(search: Sweep, best: dict[str, Any], name: str) -> str:
    text = yaml.safe_dump(winner(search.recipe, best["overrides"]), sort_keys=False, allow_unicode=True)
    score = f"{best['score']:.4f}, {len(best['seeds'])} seeds"
    return (
        f"{WINNER}, study {name}: validation {search.settings.metric} {score}, the best of many\n"
        f"# and so a little flattered. The test split was not looked at; `tuneline run` does, once.\n{text}"
    )


def rows_of(search: Sweep) -> list[dict[str, Any]]:
    """The trials, for JSON."""
    rows = []
    for trial in search.study.get_trials(deepcopy=False):
        result = trial.user_attrs.get(study.RESULT, {})
        rows.append(
            {
                "number": trial.number, "state": study.state_of(trial), "score": trial.value,
                "overrides": trial.user_attrs.get(study.OVERRIDES, trial.params),
                "epochs_measured": max(trial.intermediate_values, default=0),
                **{key: result.get(key) for key in ("seed", "seconds", "metrics", "peak_memory_mib", "run_id")},
                "error": trial.user_attrs.get(study.ERROR, trial.user_attrs.get(study.LOST)),
                "owner": trial.user_attrs.get(study.OWNER, ""),
            }
        )  # fmt: skip
    return rows


def sentence(result: dict[str, Any]) -> str:
    """The outcome in a sentence."""
    best, runner_up = result["best"], next(iter(result["finalists"][1:]), None)
    what = f"{report.spell(best['overrides'])} wins with validation {result['metric']} {best['score']:.4f}"
    many = len(best["seeds"]) > 1
    over = f", the mean of {len(best['seeds'])} seeds" if many else ", with one seed, which is an anecdote"
    if runner_up is None:
        return f"{what}{over}."
    behind = f"{what}{over}; the next one is {abs(best['score'] - runner_up['score']):.4f} behind"
    if not best["low"] <= runner_up["score"] <= best["high"]:
        return f"{behind}."
    within = f"{behind}, within the interval of {best['low']:.4f} to {best['high']:.4f}"
    took, quicker = best["seconds"], runner_up["seconds"]
    return f"{within}{f', and took {quicker:.0f} seconds instead of {took:.0f}' if quicker < 0.9 * took else ''}."


def _publish(search: Sweep, result: dict[str, Any], recipe: Path) -> None:
    folder, metric = search.engine.folder, search.settings.metric
    complete = [row for row in result["trials"] if row["state"] == "complete"]
    points = [(row["seconds"], row["score"]) for row in complete]
    best = next(place for place, row in enumerate(complete) if row["number"] == result["best"]["trial"])
    groups = [str(row["overrides"].get("train.tune", search.recipe.train.tune)) for row in complete]
    picture, page, rows = folder / PICTURE, folder / PAGE, folder / ROWS
    report.draw_front(picture, points, groups, best, metric)
    finalists = [
        [str(row["trial"]), report.interval(row["score"], row["low"], row["high"]), str(len(row["seeds"])),
         f"{row['seconds']:.1f}", report.spell(row["overrides"])] for row in result["finalists"]
    ]  # fmt: skip
    on_front = set(report.front(points, metric == "loss"))
    quickest = [
        [str(row["number"]), f"{row['score']:.4f}", f"{row['seconds']:.1f}", report.spell(row["overrides"])]
        for place, row in enumerate(complete) if place in on_front
    ]  # fmt: skip
    head = ("trial", f"validation {metric}", "seeds", "seconds", "settings")
    tables = [
        report.Table("Finalists, mean over seeds", head, finalists, best_first=True),
        report.Table("The Pareto front: nothing is both quicker and better", (*head[:2], *head[3:]), quickest),
    ]
    report.write_page(page, f"Sweep {result['study']}", [result["sentence"], NOTE], picture, tables)
    write_json(rows, result)
    search.engine.run.artifacts(picture, page, rows, recipe)
    best_row = result["best"]
    search.engine.run.headline({f"best_validation_{metric}": best_row["score"], "best_seconds": best_row["seconds"],
                                **{f"trials_{key}": value for key, value in result["counts"].items()}})  # fmt: skip
