"""tuneline: words to verbs. Imports nothing heavy before a verb is chosen."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from tuneline.errors import InputError, without_credentials
from tuneline_pipelines import compile_cli, data_cli, registry_cli, search_cli, serving_cli
from tuneline_pipelines.console import JSON, fail, remark, told, verb

app = typer.Typer(
    help="Labelled text in, a text classifier out that a team dares to promote.", no_args_is_help=True,
    pretty_exceptions_enable=False,
)  # fmt: skip
EXIT = {"succeeded": 0, "failed": 1, "cancelled": 130, "running": 130}
"""The exit status of `submit --wait`, by the run's result."""
PROFILE = Annotated[
    Path | None, typer.Option("--profile", envvar="TUNELINE_PROFILE", help="The cluster: a YAML file.", dir_okay=False)
]


@app.command()
@verb
def run(
    recipe: Annotated[str, typer.Argument(help="A recipe that ships, or a YAML file.")] = "quickstart",
    overrides: Annotated[list[str] | None, typer.Argument(help="key.path=value ...")] = None,
    docker: Annotated[bool, typer.Option("--docker", help="Each step in its container, not as a process.")] = False,
    network: Annotated[
        str | None, typer.Option(help="With --docker: the Docker network of the containers; bridge if not given.")
    ] = None,
    as_json: JSON = False,
) -> None:
    """Run the pipeline on this machine: prepare, train, evaluate, register.

    tuneline run; tuneline run text data.train=my.csv; tuneline run imdb data.max_train=2000 --json
    """
    from tuneline_pipelines.recipes import load

    if network and not docker:
        raise InputError(f"--network: {network!r} given; it is for --docker")
    chosen = load(recipe, overrides or [])
    from tuneline_pipelines.local import StepFailed
    from tuneline_pipelines.local import run as run_pipeline
    from tuneline_pipelines.show import LiveSteps, show_result
    from tuneline_pipelines.state import open_state

    containers = None
    if docker:
        from tuneline_pipelines.containers import Containers

        containers = Containers(network or "bridge")
    try:
        with LiveSteps(told) as live:
            result = run_pipeline(chosen, open_state(), live.tell, containers)
    except StepFailed as error:
        fail(str(error), 1, as_json)
    if as_json:
        print(json.dumps(result))
    else:
        show_result(told, result)


@app.command()
@verb
def build(
    target: Annotated[list[str] | None, typer.Option(help="Only this image; may be given again.")] = None,
    push: Annotated[str, typer.Option(help="A registry, such as registry.example.com/ml: push, keep digests.")] = "",
    base: Annotated[
        str, typer.Option(envvar="TUNELINE_BASE", help="The image to start from; python:3.11-slim if not given.")
    ] = "",
    cuda: Annotated[bool, typer.Option("--cuda", help="Torch with CUDA in the images that hold torch.")] = False,
    torch_index: Annotated[
        str,
        typer.Option(envvar="TUNELINE_TORCH_INDEX", help="Where torch for the CPU is; pip: where pip finds it."),
    ] = "https://download.pytorch.org/whl/cpu",
    as_json: JSON = False,
) -> None:
    """Build the images that are not there yet, one a step and the tracking server.

    tuneline build; tuneline build --push registry.example.com/ml --cuda
    """
    from tuneline_pipelines import images
    from tuneline_pipelines.build import BuildFailed, check_registry
    from tuneline_pipelines.build import build as build_images
    from tuneline_pipelines.build import push as push_images
    from tuneline_pipelines.show import LiveSteps, show_images

    if push:
        check_registry(push)
    try:
        with LiveSteps(told) as live:
            made = build_images(target or images.TARGETS, base or images.BASE, cuda, torch_index, live.tell)
            if push:
                push_images(made, push, live.tell)
    except BuildFailed as error:
        fail(str(error), 1, as_json)
    if as_json:
        print(json.dumps({"status": "succeeded", "images": made}))
    else:
        show_images(told, made)


def _cluster(path: Path | None) -> tuple[Any, Any]:
    """A profile, and its Kubeflow Pipelines."""
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

    \b
    With --wait the exit status is the run's result: 0 succeeded, 1 failed,
    130 cancelled or left running. 2 means bad input, or a server that refuses
    or does not answer. Ctrl-C asks whether to cancel the run; without a
    terminal, and without --cancel-on-interrupt, the run goes on.
    """
    from tuneline_pipelines.recipes import load

    if wait and schedule:
        raise InputError("--wait: a schedule has no end; follow its runs with `tuneline runs --remote`")
    chosen = load(recipe, overrides or [])
    cluster, remote = _cluster(profile)
    from tuneline_pipelines.show import show_submitted
    from tuneline_pipelines.submit import submit as start

    try:
        started, notes = start(chosen, cluster, remote, schedule)
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
def runs(
    name: Annotated[str | None, typer.Argument(help="Only this experiment.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, the newest first.")] = 20,
    remote: Annotated[
        bool, typer.Option("--remote", help="Those of the profile's cluster, as Kubeflow has them.")
    ] = False,
    profile: PROFILE = None,
    as_json: JSON = False,
) -> None:
    """Compare pipeline runs in a table.

    \b
    tuneline runs
    tuneline runs topics --remote --profile cluster.yaml
    """
    if remote:
        from tuneline_pipelines.follow import summary
        from tuneline_pipelines.show import show_remote_runs

        listed = [summary(run) for run in _cluster(profile)[1].runs(limit, name)]
        if as_json:
            print(json.dumps(listed))
        else:
            show_remote_runs(Console(), listed)
        return
    from tuneline.tracking import recent_runs
    from tuneline_pipelines.show import show_runs
    from tuneline_pipelines.state import close_abandoned, open_state

    close_abandoned(open_state())
    found = recent_runs(limit, name)
    if as_json:
        print(json.dumps(found))
    else:
        show_runs(Console(), found)


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

    for name, attempt, text in logs_of(_cluster(profile)[1], run, step):
        remark(f"== {name}{f', attempt {attempt}' if attempt > 1 else ''}")
        print(text, end="" if text.endswith("\n") else "\n")


@app.command()
@verb
def cancel(
    run: Annotated[str, typer.Argument(help="A run of the cluster, by name or id.")], profile: PROFILE = None
) -> None:
    """Stop a cluster's run."""
    from tuneline_pipelines.follow import FINAL

    _, remote = _cluster(profile)
    found = remote.named(run)
    if found.state in FINAL:
        raise InputError(f"{run}: has ended already ({found.state.lower()})")
    remote.cancel(found.run_id)
    remark(f"cancelling {found.display_name}")


@app.command()
@verb
def ui(port: Annotated[int, typer.Option(min=1, max=65535)] = 5000) -> None:
    """Open the MLflow UI on this project's store, until Ctrl-C."""
    import socket

    from tuneline_pipelines.state import close_abandoned, open_state

    state = open_state()
    if state.tracking_uri.startswith("http"):
        told.print(f"MLflow UI: {without_credentials(state.tracking_uri)} (MLFLOW_TRACKING_URI)", markup=False)
        return
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(("127.0.0.1", port))
        except OSError as error:
            raise InputError(f"--port {port}: {error.strerror}; name another one") from None
    close_abandoned(state)
    # MLflow's UI begins with its tools for language models unless told otherwise.
    told.print(
        f"MLflow UI: http://127.0.0.1:{port}/#/experiments?workflowType=machine_learning (Ctrl-C ends it)",
        markup=False, soft_wrap=True,
    )  # fmt: skip
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # its job workers would take 1.5 GB
    os.environ["MLFLOW_BACKEND_STORE_URI"] = state.tracking_uri  # not an argument: it may hold a password
    command = [sys.executable, "-m", "mlflow", "ui", "--port", str(port), "--workers", "1"]
    os.execv(sys.executable, command)  # noqa: S606 - the server takes this process's place, and its signals


@app.command()
@verb
def doctor() -> None:
    """Tell what this machine has and lacks."""
    from tuneline_pipelines.doctor import report

    table = Table("", "found", "what to do")
    rows = report()
    for row in rows:
        table.add_row(*row)
    Console().print(table)
    raise typer.Exit(1 if any(state == "missing" for _, state, _ in rows) else 0)


app.add_typer(compile_cli.app)
app.add_typer(data_cli.app)
app.add_typer(registry_cli.app)
app.add_typer(search_cli.app)
app.add_typer(serving_cli.app)


def main() -> None:
    """The console script."""
    # OpenMP's idle threads sleep instead of spinning: on a busy machine, or within a CPU quota, spinning threads made
    # torch four times slower, and on an idle one sleeping costs nothing (docs/experiments.md). Steps inherit it.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    app()
