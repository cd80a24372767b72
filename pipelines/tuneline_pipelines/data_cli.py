"""The verb about data: audit."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tuneline_pipelines.console import JSON, fail, told, verb

app = typer.Typer()


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
