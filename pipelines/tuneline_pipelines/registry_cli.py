"""The verbs about registered models: promote, rollback, history, trace, reproduce, compare."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich.console import Console

from tuneline_pipelines.console import JSON, told, verb

app = typer.Typer()
MODEL = Annotated[str, typer.Argument(help="A registered model.")]
EXPECT = Annotated[
    str | None,
    typer.Option(metavar="VERSION", help="The champion that is replaced, or `none`; another one there: exit status 3."),
]
REASON = Annotated[str, typer.Option(help="Why, for the history.")]


def _answer(
    found: dict[str, Any], as_json: bool, show: Callable[[Console, dict[str, Any]], None], console: Console
) -> None:
    """Print what was found as one JSON object, or show it to a person."""
    if as_json:
        print(json.dumps(found))
    else:
        show(console, found)


@app.command()
@verb
def promote(
    model: Annotated[str, typer.Argument(metavar="MODEL/VERSION", help="Or MODEL@alias.")],
    expect: EXPECT = None,
    reason: REASON = "",
    override: Annotated[
        bool, typer.Option("--override", help="Although the gate refused it; recorded as such.")
    ] = False,
    to: Annotated[str, typer.Option(metavar="MODEL", help="Copy it to this model, such as prod's, first.")] = "",
    as_json: JSON = False,
) -> None:
    """Make a version champion: what MODEL@champion names, and serving follows.

    \b
    tuneline promote topics/7 --reason 'two points better on the May test set'
    tuneline promote topics/7 --expect 5
    tuneline promote topics-staging/7 --to topics

    \b
    Exit status 3: somebody else has moved the champion first; nothing was moved.
    2: there is no such version, or the gate refused it.
    """
    from tuneline_pipelines import promote as work

    result = work.promote(model, expect, reason, override, to)
    _answer(result, as_json, work.show, told)


@app.command()
@verb
def rollback(model: MODEL, expect: EXPECT = None, reason: REASON = "", as_json: JSON = False) -> None:
    """Go back to the champion before; again, to the one before that.

    tuneline rollback topics --reason 'refunds are labelled as complaints'
    """
    from tuneline_pipelines import promote as work

    result = work.rollback(model, expect, reason)
    _answer(result, as_json, work.show, told)


@app.command()
@verb
def history(model: MODEL, as_json: JSON = False) -> None:
    """Tell who was champion: since when, by whom and why.

    tuneline history topics
    """
    from tuneline_pipelines import history as work

    found = work.history(model)
    _answer(found, as_json, work.show, Console())


@app.command()
@verb
def trace(
    model: Annotated[str, typer.Argument(metavar="MODEL@alias", help="Or MODEL/VERSION.")], as_json: JSON = False
) -> None:
    """Tell what a version was made of: data, code, image, configuration, base model, run; who and when.

    tuneline trace topics@champion
    """
    from tuneline_pipelines import trace as work

    found = work.trace(model)
    _answer(found, as_json, work.show, Console())


@app.command()
@verb
def reproduce(
    model: Annotated[str, typer.Argument(metavar="MODEL@alias", help="Or MODEL/VERSION.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key.path=value ..., such as data.train.")] = None,
    as_json: JSON = False,
) -> None:
    """Prepare and train anew what a version was made of, and tell whether the same came out.

    \b
    tuneline reproduce topics@champion
    tuneline reproduce topics/7 data.train=/archive/may.parquet

    \b
    Nothing is registered. The exit status is 0 where the weights are the
    same bit for bit, 1 where they are not, 2 where the data are others.
    """
    from tuneline_pipelines import reproduce as work
    from tuneline_pipelines.show import LiveSteps

    with LiveSteps(told) as live:
        found = work.reproduce(model, overrides or [], live.tell)
    _answer(found, as_json, work.show, Console())
    raise typer.Exit(0 if found["status"] == "identical" else 1)


@app.command()
@verb
def compare(
    first: Annotated[str, typer.Argument(help="MODEL/VERSION, MODEL@alias, or a run's id.")],
    second: Annotated[str, typer.Argument(help="The other.")],
    as_json: JSON = False,
) -> None:
    """Set two versions or runs beside each other; on the same test rows, with a paired test.

    tuneline compare topics@champion topics@challenger
    """
    from tuneline_pipelines import compare as work

    found = work.compare(first, second)
    _answer(found, as_json, work.show, Console())
