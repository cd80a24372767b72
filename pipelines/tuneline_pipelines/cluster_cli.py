"""The verbs for a cluster: compile, submit, logs and cancel."""

from __future__ import annotations

import json
import signal
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tuneline.errors import InputError
from tuneline_pipelines.console import JSON, fail, remark, told, verb

if TYPE_CHECKING:
    from tuneline_pipelines.compile import Search

app = typer.Typer()
EXIT = {"succeeded": 0, "failed": 1, "cancelled": 130, "running": 130}
"""The exit status of `submit --wait`, by the run's result."""
PROFILE = Annotated[
    Path | None, typer.Option("--profile", envvar="TUNELINE_PROFILE", help="The cluster: a YAML file.", dir_okay=False)
]
BUDGET = Annotated[str, typer.Option(help="Of a sweep: 2h, 30m, 20trials or 5usd; 20trials if not given.")]
WORKERS = Annotated[
    int | None, typer.Option(min=1, max=64, help="Of a sweep: pods that search at a time; 4 if not given.")
]
STUDY = Annotated[str, typer.Option(help="Of a sweep: the study's name; made of recipe and data if not given.")]


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
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The YAML file to write; PIPELINE.yaml if not given.")
    ] = None,
    profile: PROFILE = None,
    pipeline: Annotated[
        Pipeline, typer.Option(help="Which one; batch-predict takes no recipe, sweep one and a profile.")
    ] = Pipeline.FINETUNE,
    budget: BUDGET = "",
    workers: WORKERS = None,
    study: STUDY = "",
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
    search, out = _search(pipeline, budget, workers, study), output or Path(f"{pipeline.value}.yaml")
    chosen, cluster = load(recipe, overrides or []) if recipe else None, load_profile(profile) if profile else None
    if pipeline is Pipeline.BATCH:
        notes = compile_batch(out, cluster)
    elif pipeline is Pipeline.FINETUNE:
        notes = compile_pipeline(out, chosen, cluster)
    elif chosen is None or cluster is None or search is None:
        raise InputError("--pipeline sweep: needs a recipe, and a --profile that names the Secret of the database")
    else:
        notes = compile_sweep(out, chosen, cluster, search)
    for note in notes:
        remark(note)
    told.print(f"wrote {out}", markup=False)


def _search(pipeline: Pipeline, budget: str, workers: int | None, study: str) -> Search | None:
    """What a sweep may spend; None of another pipeline, which takes none of these."""
    from tuneline_pipelines.compile import Search

    given: dict[str, Any] = {"budget": budget, "workers": workers, "study": study}
    given = {name: value for name, value in given.items() if value}
    if pipeline is Pipeline.SWEEP:
        return Search(**given)
    if given:
        raise InputError(f"--budget, --workers and --study are a sweep's; --pipeline {pipeline.value} takes none")
    return None


def cluster_of(path: Path | None) -> tuple[Any, Any]:
    """A profile, and its Kubeflow Pipelines.

    Raises:
        InputError: no profile, or one that is wrong or names no server.
    """
    from tuneline_pipelines.remote import Remote
    from tuneline_pipelines.resources import load_profile
    from tuneline_pipelines.submit import server_of

    if path is None:
        raise InputError("--profile: not given; name the cluster's YAML file there, or in TUNELINE_PROFILE")
    profile = load_profile(path)
    return profile, Remote(server_of(profile), remark)


@app.command()
@verb
def submit(
    recipe: Annotated[str, typer.Argument(help="A recipe that ships, or a YAML file.")] = "quickstart",
    overrides: Annotated[list[str] | None, typer.Argument(help="key.path=value ...")] = None,
    profile: PROFILE = None,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the run; its result is the exit status.")] = False,
    schedule: Annotated[
        str | None, typer.Option(metavar="CRON", help="Run again and again: 'MIN HOUR DAY MONTH WEEKDAY'.")
    ] = None,
    pipeline: Annotated[
        Pipeline, typer.Option(help="finetune, or sweep, which searches for better settings.")
    ] = Pipeline.FINETUNE,
    budget: BUDGET = "",
    workers: WORKERS = None,
    study: STUDY = "",
    cancel_on_interrupt: Annotated[
        bool, typer.Option("--cancel-on-interrupt", help="With --wait: Ctrl-C or SIGTERM cancels the run, unasked.")
    ] = False,
    as_json: JSON = False,
) -> None:
    """Run the pipeline on a cluster.

    \b
    tuneline submit topics.yaml train.epochs=5 --profile cluster.yaml
    tuneline submit topics.yaml --profile cluster.yaml --wait
    tuneline submit topics.yaml --profile cluster.yaml --schedule '0 3 * * 1'
    tuneline submit topics.yaml --profile cluster.yaml --pipeline sweep --budget 2h

    \b
    With --wait the exit status is the run's result: 0 succeeded, 1 failed,
    130 cancelled or left running. 2 means bad input, or a server that refuses
    or does not answer. Ctrl-C asks whether to cancel the run; without a
    terminal, and without --cancel-on-interrupt, the run goes on.
    """
    from tuneline_pipelines.recipes import load

    if wait and schedule:
        raise InputError("--wait: a schedule has no end; follow its runs with `tuneline runs --remote`")
    if pipeline is Pipeline.BATCH:
        raise InputError(
            "--pipeline batch-predict: its parameters are given with each run; write it with "
            "`tuneline compile`, and upload that"
        )
    search = _search(pipeline, budget, workers, study)
    if search and schedule:
        raise InputError(
            "--schedule: a sweep goes on with its study and finds nothing new; schedule its winner's recipe"
        )
    chosen = load(recipe, overrides or [])
    cluster, remote = cluster_of(profile)
    from tuneline_pipelines.show import show_submitted
    from tuneline_pipelines.submit import submit as start

    try:
        started, notes = start(chosen, cluster, remote, schedule, search)
    except KeyboardInterrupt:
        fail("interrupted; `tuneline runs --remote` tells whether the run was started", 130, as_json)
    for note in notes:
        remark(note)
    show_submitted(told, started)
    result = started.summary()
    if wait:
        try:
            result |= _await(remote, started.id, cancel_on_interrupt)
        except InputError as error:
            raise InputError(f"{error}; the run {started.id} goes on") from None
    if as_json:
        print(json.dumps(result))
    raise typer.Exit(EXIT.get(result["status"], 1) if wait else 0)


def _await(remote: Any, run_id: str, cancel: bool) -> dict[str, Any]:
    """Follow a run to its end and tell how it ended; SIGTERM, by which CI stops a job, is taken as Ctrl-C is."""
    from tuneline_pipelines.follow import follow_or_cancel, outcome

    def asked() -> bool:
        if cancel or not (sys.stdin.isatty() and told.is_terminal):
            return cancel
        try:
            return typer.confirm("\ncancel the run on the cluster?", err=True)
        except typer.Abort:
            return False

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    run = follow_or_cancel(remote, run_id, lambda step, _done, _total, note: remark(f"{step:9} {note}"), asked)
    result = outcome(run)
    if run is None:
        remark(f"the run goes on; tuneline cancel {run_id} stops it")
        return result
    failed = next((step["step"] for step in result["steps"] if step["state"] == "FAILED"), None)
    if result["status"] == "failed" and failed:
        remark(f"the run failed in {failed}; next: tuneline logs {run_id} --step {failed}")
    else:
        remark(": ".join(filter(None, (f"the run {result['status']}", result["error"]))))
    return result


@app.command()
@verb
def logs(
    run: Annotated[str, typer.Argument(help="A run of the cluster, by name or id.")],
    step: Annotated[str | None, typer.Option(help="Only this step, such as train; else every step that ran.")] = None,
    profile: PROFILE = None,
) -> None:
    """Print what the steps of a cluster's run printed.

    \b
    tuneline logs topics-20261124-093000-1f2e3d --profile cluster.yaml
    tuneline logs topics-20261124-093000-1f2e3d --step train --profile cluster.yaml > train.log
    """
    from tuneline_pipelines.follow import logs as logs_of

    for name, attempt, text in logs_of(cluster_of(profile)[1], run, step):
        remark(f"== {name}{f', attempt {attempt}' if attempt > 1 else ''}")
        print(text, end="" if text.endswith("\n") else "\n")


@app.command()
@verb
def cancel(
    run: Annotated[str, typer.Argument(help="A run of the cluster, by name or id.")], profile: PROFILE = None
) -> None:
    """Stop a cluster's run.

    \b
    tuneline cancel topics-20261124-093000-1f2e3d --profile cluster.yaml
    """
    from tuneline_pipelines.follow import FINAL

    _, remote = cluster_of(profile)
    found = remote.named(run)
    if found.state in FINAL:
        raise InputError(f"{run}: has ended already ({found.state.lower()})")
    remote.cancel(found.run_id)
    remark(f"cancelling {found.display_name}")
