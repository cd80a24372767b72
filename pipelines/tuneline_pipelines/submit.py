"""tuneline submit: the pipeline on a cluster, as a run of its own or on a schedule.

A pipeline version holds the code's shape and the cluster's profile, and is named by its content; a recipe's values are
the run's arguments. So equal submissions share a version, and a version says which runs were built alike.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import tempfile
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml
from kfp_server_api import (
    V2beta1CronSchedule,
    V2beta1PipelineVersionReference,
    V2beta1RecurringRun,
    V2beta1Run,
    V2beta1RuntimeConfig,
    V2beta1Trigger,
)

from tuneline.config import Recipe
from tuneline.errors import InputError
from tuneline.tracking import EXPERIMENT
from tuneline_pipelines.compile import Search, arguments_of, nodes_of, sweep_arguments_of, write, write_sweep
from tuneline_pipelines.recipes import places
from tuneline_pipelines.remote import Remote
from tuneline_pipelines.resources import Profile
from tuneline_pipelines.server import Server

PLUGIN_SINCE = (2, 17)
"""The first KFP server whose runs have the field plugins_input; an older one may refuse it."""
_CRON = re.compile(
    r"@(yearly|annually|monthly|weekly|daily|midnight|hourly|every \d+[hms]\S*)|[\w*/,?-]+( [\w*/,?-]+){4,5}"
)


@dataclass(frozen=True)
class Pipeline:
    """A compiled pipeline.

    Attributes:
        name: its name on the server.
        version: its version's name, which tells its content.
        file: the IR.
        arguments: the recipe's values that it takes.
        notes: what the person should know.
    """

    name: str
    version: str
    file: Path
    arguments: dict[str, Any]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Submitted:
    """What was started.

    Attributes:
        id: of the run, or of the recurring run.
        name: its name.
        experiment: the experiment's name, in KFP and in MLflow.
        version: the pipeline version's name.
        reused: what was there already, such as a version of the same content.
        links: where it is to be seen, by system.
    """

    id: str
    name: str
    experiment: str
    version: str
    reused: list[str]
    links: dict[str, str]

    def summary(self) -> dict[str, Any]:
        """As a JSON object."""
        scheduled = "recurringrun" in self.links["kubeflow"]
        return {"status": "scheduled" if scheduled else "submitted", **asdict(self)}


def server_of(profile: Profile) -> Server:
    """The profile's server.

    Raises:
        InputError: it names none.
    """
    if profile.server is None:
        raise InputError("profile.server: not given; name Kubeflow's API there, as server: {endpoint: https://...}")
    return profile.server


def cron(expression: str) -> str:
    """The expression as KFP wants it, with seconds first; the five fields of a crontab start at second 0.

    Raises:
        InputError: it is none.
    """
    text = " ".join(expression.split())
    if not _CRON.fullmatch(text):
        raise InputError(f"--schedule: {expression!r} given; write the five fields of a crontab, such as '0 3 * * 1'")
    return f"0 {text}" if text.count(" ") == 4 else text


def compile_for(
    recipe: Recipe, profile: Profile, folder: Path, scheduled: bool = False, search: Search | None = None
) -> Pipeline:
    """Compile for the profile's cluster, with the recipe's values as arguments.

    Args:
        recipe: what is trained.
        profile: the cluster.
        folder: where to write.
        scheduled: the pipeline runs later, on the data of that day: it is not pinned, and prepare is not cached.
        search: what a sweep may spend; None fine-tunes once.

    Raises:
        InputError: a source or the checkpoint cannot be what is asked.
    """
    experiment = server_of(profile).experiment or recipe.register_.name
    profile = profile.model_copy(update={"env": {EXPERIMENT: experiment, **profile.env}})
    arguments, notes = sweep_arguments_of(recipe, profile, search) if search else arguments_of(recipe)
    if scheduled:
        arguments.pop("data_pin", None)
    file, pinned = folder / "pipeline.yaml", bool(arguments.get("data_pin"))
    if search:
        notes += write_sweep(file, {}, pinned, profile)
    else:
        notes += write(file, {}, pinned, profile, nodes_of(recipe, profile))
    content = file.read_bytes()
    spec = next(yaml.safe_load_all(content))
    name = spec["pipelineInfo"]["name"]
    known = spec["root"]["inputDefinitions"]["parameters"]
    arguments = {key: value for key, value in arguments.items() if key in known}
    return Pipeline(name, f"{name}-{hashlib.sha256(content).hexdigest()[:16]}", file, arguments, notes)


def refuse_unseen(recipe: Recipe, profile: Profile) -> list[str]:
    """Refuse what only this machine can see: the run's pods have other disks.

    Returns:
        A note for each absolute path that no volume of the profile brings to prepare.

    Raises:
        InputError: a source, the file of corrections or the checkpoint is a relative path.
    """
    volumes = [*profile.steps.prepare.volumes, *([profile.model_cache] if profile.model_cache else [])]
    notes = []
    for key, value in places(recipe).items():
        if value.startswith("/"):
            if not any(Path(value).is_relative_to(volume.mount_path) for volume in volumes):
                notes.append(f"{key}: {value} is on no volume that the profile mounts for prepare")
        elif _is_relative(key, value):
            others = "" if key == "data.corrections" else "hf://OWNER/NAME, s3://BUCKET/PREFIX or "
            raise InputError(
                f"{key}: {value!r} is a path on this machine, which the run's pods do not see; give {others}an "
                f"absolute path on a volume that the profile mounts"
            )
    return notes


def _is_relative(key: str, value: str) -> bool:
    if key == "model.name":  # else a hub id, which looks like a path
        return value.startswith((".", "~")) or (Path(value) / "config.json").is_file()
    return bool(value) and not value.startswith(("hf://", "s3://", "sample:"))


def submit(
    recipe: Recipe, profile: Profile, remote: Remote, schedule: str | None = None, search: Search | None = None
) -> tuple[Submitted, list[str]]:
    """Start a run, or a recurring run.

    Args:
        recipe: what is trained.
        profile: the cluster.
        remote: its server.
        schedule: a cron expression.
        search: what a sweep may spend; None fine-tunes once.

    Returns:
        What was started, and what the person should know.

    Raises:
        InputError: the recipe cannot be run, or the server refuses or does not answer.
    """
    when = cron(schedule) if schedule else None
    notes = list(dict.fromkeys(note for one in _read(recipe, search) for note in refuse_unseen(one, profile)))
    experiment = remote.server.experiment or recipe.register_.name
    with tempfile.TemporaryDirectory() as folder:
        pipeline = compile_for(recipe, profile, Path(folder), bool(when), search)
        shared, known = _place(remote, pipeline, experiment)
    reused = [f"pipeline version {pipeline.version}"] if known else []
    if when:
        started, there = _schedule(remote, pipeline, experiment, when, shared)
        reused += [f"recurring run {started.display_name}"] if there else []
        place, number = "recurringrun", started.recurring_run_id
    else:
        started = remote.create_run(V2beta1Run(display_name=_run_name(experiment), **shared))
        place, number = "runs", started.run_id
    links = _links(remote.server, place, number, experiment, started)
    return Submitted(number, started.display_name, experiment, pipeline.version, reused, links), notes + pipeline.notes


def _read(recipe: Recipe, search: Search | None) -> list[Recipe]:
    """The recipes whose sources are read: of a sweep every one of its space."""
    if search is None:
        return [recipe]
    from tuneline.search.cluster import variants

    return variants(recipe)


def _place(remote: Remote, pipeline: Pipeline, experiment: str) -> tuple[dict[str, Any], bool]:
    """Bring the pipeline's version and the experiment to the server.

    Returns:
        What a run and a recurring run have in common, and whether the version was there before.
    """
    server, health = remote.server, remote.health()
    if health.get("multi_user") and not server.namespace:
        raise InputError("profile.server.namespace: not given; this server serves several, name yours")
    parent = remote.pipeline(pipeline.name)
    version, known = remote.version(parent.pipeline_id, pipeline.version, pipeline.file)
    shared: dict[str, Any] = {
        "experiment_id": remote.experiment(experiment).experiment_id,
        "pipeline_version_reference": V2beta1PipelineVersionReference(
            pipeline_id=parent.pipeline_id, pipeline_version_id=version.pipeline_version_id
        ),
        "runtime_config": V2beta1RuntimeConfig(parameters=pipeline.arguments, pipeline_root=server.pipeline_root),
        "service_account": server.service_account,
    }
    if tells_plugin(server, health):
        shared["plugins_input"] = {"mlflow": {"experiment_name": experiment}}
    return shared, known


def tells_plugin(server: Server, health: dict[str, Any]) -> bool:
    """Whether the run names its MLflow experiment to KFP's plugin; a server without the plugin passes over it."""
    if server.mlflow_plugin is not None:
        return server.mlflow_plugin
    found = re.match(r"v?(\d+)\.(\d+)", str(health.get("tag_name", "")))
    return bool(found) and (int(found[1]), int(found[2])) >= PLUGIN_SINCE


def _run_name(experiment: str) -> str:
    """Of its own for every submission: a request whose answer was lost is found again by it."""
    return f"{experiment}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


def _schedule(
    remote: Remote, pipeline: Pipeline, experiment: str, when: str, shared: dict[str, Any]
) -> tuple[Any, bool]:
    """A recurring run named by all that it does, so that the same schedule submitted twice trains once."""
    server = remote.server
    all_of_it = [pipeline.version, pipeline.arguments, when, server.service_account, server.pipeline_root]
    told = yaml.safe_dump(all_of_it).encode()
    return remote.schedule(
        V2beta1RecurringRun(
            display_name=f"{experiment}-{hashlib.sha256(told).hexdigest()[:10]}", mode="ENABLE", no_catchup=True,
            max_concurrency="1", trigger=V2beta1Trigger(cron_schedule=V2beta1CronSchedule(cron=when)), **shared,
        )
    )  # fmt: skip


def _links(server: Server, place: str, number: str, experiment: str, started: Any) -> dict[str, str]:
    links = {"kubeflow": f"{server.ui or server.endpoint}/#/{place}/details/{number}"}
    if url := _plugin_url(getattr(started, "plugins_output", None)):
        links["mlflow"] = url
    elif server.mlflow:
        # By name: its number is MLflow's to know, and this machine may not reach MLflow. The page narrows its list.
        links["mlflow"] = f"{server.mlflow}/#/experiments?experimentSearchFilter={quote(experiment)}"
    return links


def _plugin_url(outputs: Any) -> str:
    """The MLflow run that KFP's plugin made for this run."""
    entries = outputs["mlflow"].entries if outputs and outputs.get("mlflow") else None
    value = entries["run_url"].value if entries and "run_url" in entries else ""
    return value if isinstance(value, str) else ""
