"""tuneline: words to verbs. Imports nothing heavy before a verb is chosen."""

from __future__ import annotations

import json
import os
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

import tuneline
from tuneline.errors import InputError, without_credentials
from tuneline_pipelines import cluster_cli, data_cli, registry_cli, search_cli, serving_cli
from tuneline_pipelines.cluster_cli import PROFILE, cluster_of
from tuneline_pipelines.console import JSON, Verbs, fail, told, verb

app = typer.Typer(
    help="Labelled text in, a text classifier out that a team dares to promote.", no_args_is_help=True,
    pretty_exceptions_enable=False, cls=Verbs, context_settings={"help_option_names": ["--help", "-h"]},
)  # fmt: skip


def _version(asked: bool) -> None:
    if asked:
        print(tuneline.__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Labelled text in, a text classifier out that a team dares to promote."""


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

    \b
    tuneline run
    tuneline run text data.train=my.csv
    tuneline run imdb data.max_train=2000 --json
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
        str,
        typer.Option(envvar="TUNELINE_BASE", help="To start from; python:3.11-slim-bookworm if not given."),
    ] = "",
    cuda: Annotated[bool, typer.Option("--cuda", help="Torch with CUDA in the images that hold torch.")] = False,
    torch_index: Annotated[
        str,
        typer.Option(envvar="TUNELINE_TORCH_INDEX", help="Where torch for the CPU is; pip: where pip finds it."),
    ] = "https://download.pytorch.org/whl/cpu",
    as_json: JSON = False,
) -> None:
    """Build the images that are not there yet: one a step, the sweep's, the tracking server's and the service's.

    \b
    tuneline build
    tuneline build --push registry.example.com/ml --cuda
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

        listed = [summary(run) for run in cluster_of(profile)[1].runs(limit, name)]
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
def ui(port: Annotated[int, typer.Option(min=1, max=65535)] = 5000) -> None:
    """Open the MLflow UI on this project's store, until Ctrl-C.

    \b
    tuneline ui
    tuneline ui --port 5001
    """
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
    """Tell what this machine has and lacks; the exit status is 1 where something needed is missing.

    \b
    tuneline doctor
    """
    from tuneline_pipelines.doctor import report

    table = Table("", "found", "what to do")
    rows = report()
    for row in rows:
        table.add_row(*row)
    Console().print(table)
    raise typer.Exit(1 if any(state == "missing" for _, state, _ in rows) else 0)


app.add_typer(cluster_cli.app)
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
