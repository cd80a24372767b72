"""The verb that writes a pipeline for a cluster as a file: compile."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from tuneline.errors import InputError
from tuneline_pipelines.console import remark, told, verb

app = typer.Typer()


class Pipeline(StrEnum):
    """The pipelines that can be compiled."""

    FINETUNE = "finetune"
    BATCH = "batch-predict"
    SWEEP = "sweep"


@app.command("compile")
@verb
def compile_(
    recipe: Annotated[str | None, typer.Argument(help="Its values become the parameters' defaults.")] = None,
    overrides: Annotated[list[str] | None, typer.Argument(help="key.path=value ...")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The YAML file to write.")] = Path("finetune.yaml"),
    profile: Annotated[
        Path | None, typer.Option(envvar="TUNELINE_PROFILE", help="What the cluster is asked for: a YAML file.")
    ] = None,
    pipeline: Annotated[
        Pipeline, typer.Option(help="Which one; batch-predict takes no recipe, sweep one and a profile.")
    ] = Pipeline.FINETUNE,
    budget: Annotated[str, typer.Option(help="Of a sweep: 2h, 30m, 20trials or 5usd; 20trials if not given.")] = "",
    workers: Annotated[
        int | None, typer.Option(min=1, max=64, help="Of a sweep: pods that search at a time; 4 if not given.")
    ] = None,
    study: Annotated[
        str, typer.Option(help="Of a sweep: the study's name; made of recipe and data if not given.")
    ] = "",
) -> None:
    """Write a pipeline as KFP's intermediate representation.

    \b
    tuneline compile text data.train=/data/my.csv --profile p.yaml
    tuneline compile --pipeline batch-predict -o b.yaml
    tuneline compile --pipeline sweep topics.yaml --budget 40trials --workers 4 --profile p.yaml -o s.yaml
    """
    from tuneline_pipelines.compile import compile_batch, compile_pipeline, compile_sweep
    from tuneline_pipelines.recipes import load
    from tuneline_pipelines.resources import load_profile

    if recipe and pipeline is Pipeline.BATCH:
        raise InputError(f"{recipe}: --pipeline batch-predict takes no recipe; its parameters are given with each run")
    if pipeline is not Pipeline.SWEEP and (budget or workers or study):
        raise InputError(f"--budget, --workers and --study are a sweep's; --pipeline {pipeline.value} takes none")
    chosen, cluster = load(recipe, overrides or []) if recipe else None, load_profile(profile) if profile else None
    if pipeline is Pipeline.BATCH:
        notes = compile_batch(output, cluster)
    elif pipeline is Pipeline.FINETUNE:
        notes = compile_pipeline(output, chosen, cluster)
    elif chosen is None or cluster is None:
        raise InputError("--pipeline sweep: needs a recipe, and a --profile that names the Secret of the database")
    else:
        notes = compile_sweep(output, chosen, cluster, budget or "20trials", workers or 4, study)
    for note in notes:
        remark(note)
    told.print(f"wrote {output}", markup=False)
