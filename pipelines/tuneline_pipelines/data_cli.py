"""The verbs before a run: init, which makes a recipe, audit, which looks at the data, and plan, which looks ahead."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tuneline.errors import InputError
from tuneline_pipelines.console import JSON, fail, remark, told, verb

app = typer.Typer()


@app.command()
@verb
def init(
    name: Annotated[str, typer.Argument(help="Of the recipe's file and of the registered model.")] = "my-classifier",
    data: Annotated[str, typer.Option(help="As data.train: a file, folder, glob, s3:// or hf://.")] = "",
    text: Annotated[str, typer.Option(help="The column of texts.")] = "",
    label: Annotated[str, typer.Option(help="The column of labels.")] = "",
    where: Annotated[str, typer.Option(help="laptop, docker or cluster.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Write over files that are there.")] = False,
) -> None:
    """Ask three questions and write a recipe with comments; for a cluster a profile too.

    \b
    tuneline init support-desk
    tuneline init support-desk --data my.csv --where laptop

    \b
    What is given as an option is not asked. Columns are guessed from the
    file, and the guess is offered.
    """
    from dataclasses import replace

    from tuneline.tables.files import shown_columns
    from tuneline_pipelines.init import Where, check, guess, next_commands, write

    data = data or _ask("Where is the labelled text (a file, folder, s3:// or hf://)?", "--data")
    columns = guess(data, text, label)
    if columns.names:
        remark(f"{data}: columns {shown_columns(columns.names)}")
    text = text or _ask("Which column holds the text?", "--text", columns.text)
    label = label or _ask("Which column holds the label?", "--label", columns.label)
    columns = check(data, replace(columns, text=text, label=label))
    where = where or _ask("Where will it run (laptop, docker, cluster)?", "--where", Where.LAPTOP)
    if where not in list(Where):
        raise InputError(f"--where: {where!r} given; must be one of: {', '.join(Where)}")
    if columns.labels > max(20, columns.rows // 2):
        remark(
            f"note: {columns.label} has {columns.labels:,} different values in {columns.rows:,} rows; is it the label?"
        )
    if not columns.headed:
        remark(f"note: {columns.label} is the name of a column and one of its labels; has the file a header?")
    for path in write(name, data, columns, Where(where), force):
        remark(f"wrote {path}")
    remark("next:")
    for command in next_commands(name, Where(where), data):
        remark(f"  {command}")


def _ask(question: str, option: str, default: str | None = None) -> str:
    """A person's answer, or the default where nobody sits at a terminal.

    Raises:
        InputError: nobody does, and there is no default.
    """
    if sys.stdin.isatty():
        try:
            return typer.prompt(question, default=default, err=True)
        except typer.Abort:
            told.print()
            fail("interrupted; nothing was written", 130)
    if default is None:
        raise InputError(f"{option}: not given, and there is no terminal to ask at")
    return default


@app.command()
@verb
def audit(
    recipe: Annotated[str, typer.Argument(help="A recipe that ships, or a YAML file.")] = "quickstart",
    overrides: Annotated[list[str] | None, typer.Argument(help="key.path=value ...")] = None,
    out: Annotated[
        Path | None, typer.Option(help="The folder to write; .tuneline/audit/NAME if not given.", file_okay=False)
    ] = None,
    no_open: Annotated[bool, typer.Option("--no-open", help="Do not open the page in a browser.")] = False,
    as_json: JSON = False,
) -> None:
    """Look for what is wrong with the data before a training: the prepare step alone, and its page.

    \b
    tuneline audit text data.train=my.csv
    tuneline audit text data.train=my.csv data.near_duplicates=0.8 --out audit
    tuneline audit imdb data.policy.markup=fail --json

    \b
    The exit status is 0, also with warnings, and 2 where the policy of a
    finding is fail or the data cannot be read.
    """
    from tuneline_pipelines.audit import audit as run_audit
    from tuneline_pipelines.audit import show
    from tuneline_pipelines.recipes import load
    from tuneline_pipelines.show import LiveSteps

    chosen = load(recipe, overrides or [])
    with LiveSteps(told) as live:
        result = run_audit(chosen, out, live.tell)
    if as_json:
        print(json.dumps(result, ensure_ascii=False))
    else:
        show(Console(), result)
    if result["page"] and not (no_open or as_json) and sys.stdout.isatty():
        typer.launch(Path(result["page"]).as_uri())
    if result["status"] == "failed":
        fail(result["error"], 2)


@app.command()
@verb
def plan(
    recipe: Annotated[str, typer.Argument(help="A recipe that ships, or a YAML file.")] = "quickstart",
    overrides: Annotated[list[str] | None, typer.Argument(help="key.path=value ...")] = None,
    profile: Annotated[
        Path | None, typer.Option(envvar="TUNELINE_PROFILE", help="The cluster it would run on: a YAML file.")
    ] = None,
    as_json: JSON = False,
) -> None:
    """Tell what a run will do and take, from a few measured steps, before anything is started.

    \b
    tuneline plan text data.train=my.csv
    tuneline plan topics.yaml train.tune=top_layers train.price_per_hour=2.5
    tuneline plan topics.yaml --profile cluster.yaml --json

    \b
    Rows and tokens, steps, memory and the train.pass_tokens that fits it,
    time, cost and disk; nothing is kept, and no run is made. What a run
    would refuse ends in one line here too, with exit status 2.
    """
    from tuneline_pipelines.recipes import load
    from tuneline_pipelines.resources import load_profile

    chosen, cluster = load(recipe, overrides or []), load_profile(profile) if profile else None
    from tuneline_pipelines.outlook import show
    from tuneline_pipelines.plan import plan as look_ahead
    from tuneline_pipelines.show import LiveSteps

    with LiveSteps(told) as live:
        result = look_ahead(chosen, cluster, live.tell)
    if as_json:
        print(json.dumps(result, ensure_ascii=False))
    else:
        show(Console(), result)
