"""tuneline compile: the pipeline as KFP's intermediate representation, checked with KFP's own protos."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from tuneline.config import Recipe
from tuneline.errors import InputError, NotHereError
from tuneline_pipelines import images
from tuneline_pipelines.outputs import check_file
from tuneline_pipelines.resources import Profile, apply

_PIPELINE = "# PIPELINE DEFINITION"
"""How a file that KFP compiled begins."""


def compile_pipeline(out: Path, recipe: Recipe | None, profile: Profile | None = None) -> list[str]:
    """Write the IR; a recipe's values become the parameters' defaults, a profile what the cluster is asked for.

    The images are those that were pushed, by digest, unless the profile names others.

    Sources and a checkpoint that this machine can read are pinned by content. The cluster may see what it cannot: such
    a pipeline is written all the same, without a pin, so that KFP never reuses data that may have changed.

    Returns:
        What the person should know, a sentence each.

    Raises:
        InputError: the file cannot be written, or a source or the checkpoint cannot be what is asked.
    """
    arguments, notes = arguments_of(recipe) if recipe else ({}, [])
    nodes = nodes_of(recipe, profile) if recipe else 1
    return notes + write(out, arguments, bool(arguments.get("data_pin")), profile, nodes)


def arguments_of(recipe: Recipe) -> tuple[dict[str, Any], list[str]]:
    """A recipe as the pipeline's arguments, with a pin where this machine can read what it names; and notes."""
    from tuneline.prepare.prepare import pin

    pinned, notes = _pin(lambda: pin(recipe.data, recipe.model))
    return recipe.flat() | pinned, notes


def _pin(pin: Callable[[], str]) -> tuple[dict[str, str], list[str]]:
    """The argument data_pin, none where this machine cannot see what is pinned; and a note of that."""
    try:
        return {"data_pin": pin()}, []
    except NotHereError as error:
        return {}, [f"prepare will not be cached, because its input is not to be seen from here: {error}"]


def nodes_of(recipe: Recipe, profile: Profile | None) -> int:
    """The machines that the recipe trains on.

    Raises:
        InputError: there is more than one, and the profile does not tell how a TrainJob is started.
    """
    nodes = recipe.train.distributed.nodes
    if nodes > 1 and not (profile and profile.trainjob):
        raise InputError(f"train.distributed.nodes: {nodes} given; more than one needs a --profile with trainjob")
    return nodes


def write(out: Path, defaults: dict[str, Any], pinned: bool, profile: Profile | None, nodes: int = 1) -> list[str]:
    """Write the IR of fine-tuning and check it.

    Args:
        out: a YAML file.
        defaults: of the parameters.
        pinned: prepared data may be reused where its pin is equal.
        profile: the cluster.
        nodes: the machines that train.

    Returns:
        What the person should know, a sentence each.

    Raises:
        InputError: the file cannot be written.
    """
    from tuneline_pipelines.finetune import build

    return _write(build(pinned, _steps(profile, nodes)), out, defaults)


def compile_batch(out: Path, profile: Profile | None = None) -> list[str]:
    """Write the IR of batch prediction; its parameters are given when a run is started.

    Returns:
        What the person should know, a sentence each.

    Raises:
        InputError: the file cannot be written.
    """
    from tuneline_pipelines.batch import build

    return _write(build(_steps(profile)), out, {})


@dataclass(frozen=True)
class Search:
    """What a sweep on a cluster may spend.

    Attributes:
        budget: as of `tuneline sweep`; dollars are shared by the workers, at train.price_per_hour each.
        workers: pods that search at a time.
        study: its name; empty takes one for recipe, data and space.
    """

    budget: str = "20trials"
    workers: int = 4
    study: str = ""


def compile_sweep(out: Path, recipe: Recipe, profile: Profile, search: Search) -> list[str]:
    """Write the IR of a sweep; recipe, budget and workers become the parameters' defaults.

    Args:
        out: a YAML file.
        recipe: what trials start from.
        profile: the cluster.
        search: what it may spend.

    Returns:
        What the person should know, a sentence each.

    Raises:
        InputError: the file cannot be written, what is asked cannot be, or the workers would have no database.
    """
    arguments, notes = sweep_arguments_of(recipe, profile, search)
    return notes + write_sweep(out, arguments, bool(arguments.get("data_pin")), profile)


def sweep_arguments_of(recipe: Recipe, profile: Profile, search: Search) -> tuple[dict[str, Any], list[str]]:
    """A search as the sweep pipeline's arguments, with a pin where this machine can read what it names; and notes.

    Raises:
        InputError: what is asked cannot be, or the workers would have no database.
    """
    from tuneline.search.cluster import STORAGE, pinned, written

    if recipe.train.distributed.nodes > 1:
        nodes = recipe.train.distributed.nodes
        raise InputError(f"train.distributed.nodes: {nodes} given; a sweep trains each trial in one pod")
    if not profile.gives(STORAGE):
        raise InputError(
            f"profile.secrets: none gives {STORAGE}, the study's database; name a Secret that holds postgresql://..., "
            f"as {{name: SECRET, keys: {{KEY: {STORAGE}}}}}"
        )
    arguments: dict[str, Any] = {
        "recipe": written(recipe), "budget": _side_by_side(search.budget, search.workers, recipe.train.price_per_hour),
        "workers": [str(number) for number in range(1, search.workers + 1)], "study": search.study,
    }  # fmt: skip
    pin, notes = _pin(lambda: pinned(recipe))
    return arguments | pin, notes


def write_sweep(out: Path, defaults: dict[str, Any], pinned: bool, profile: Profile) -> list[str]:
    """Write the IR of a sweep and check it; arguments and notes are those of `write`.

    Raises:
        InputError: the file cannot be written.
    """
    from tuneline_pipelines.sweep_dag import build

    return _write(build(pinned, _steps(profile)), out, defaults)


def _side_by_side(budget: str, workers: int, price: float) -> str:
    """The budget as the workers take it: dollars as the seconds that they buy of all of them together."""
    from tuneline.search.budget import Budget

    if budget.strip().lower().endswith("usd") and not price:
        raise InputError("--budget: dollars need the price of a worker; give train.price_per_hour=PRICE")
    found = Budget.parse(budget, price * workers)
    return f"{found.seconds:.0f}s" if found.seconds else budget


def _steps(profile: Profile | None, nodes: int = 1) -> Callable[[str, Any], None]:
    """What is put on each task: the image that was pushed, then what the profile says."""
    known = images.known()
    if "sweep" in known:
        known["conclude"] = known["sweep"]
    return images.configure(known, partial(apply, profile, nodes=nodes) if profile else None)


def check_output(out: Path) -> None:
    """Refuse to write over what is no pipeline.

    Raises:
        InputError: it is no YAML file's name, or cannot be written, or a recipe, a profile or another file lies there.
    """
    if out.suffix not in (".yaml", ".yml"):
        raise InputError(f"--output: {out}: unknown form {out.suffix!r}; allowed: .yaml, .yml")
    check_file("--output", out, _PIPELINE, "a pipeline")


def _write(pipeline: Any, out: Path, arguments: dict[str, Any]) -> list[str]:
    from kfp import compiler

    check_output(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    compiler.Compiler().compile(pipeline, package_path=str(out), pipeline_parameters=arguments)
    named, notes = check(out), []
    if old := images.outdated(named):
        notes.append(
            f"{', '.join(old)}: pushed before the code changed; push the images of this code with tuneline build"
        )
    if moving := [image for image in named if "@sha256:" not in image]:
        notes.append(
            f"{len(moving)} images are named by a tag, such as {moving[0]}, which may move and make KFP's cache lie; "
            f"push them with tuneline build --push, or name them by digest in a profile"
        )
    return notes


def check(path: Path) -> list[str]:
    """Parse IR with KFP's protos and see that every component and executor that it refers to exists.

    Returns:
        The images that it runs.

    Raises:
        InputError: it does not hold.
    """
    from google.protobuf import json_format
    from kfp.pipeline_spec import pipeline_spec_pb2

    documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    protos: Any = pipeline_spec_pb2  # generated; its classes are not visible to a type checker
    spec = protos.PipelineSpec()
    try:
        json_format.ParseDict(documents[0], spec)
        for platform in documents[1:]:
            json_format.ParseDict(platform, protos.PlatformSpec())
    except (json_format.ParseError, IndexError) as error:
        raise InputError(f"{path}: not a KFP pipeline: {error}") from None
    executors = spec.deployment_spec.fields["executors"].struct_value.fields
    for owner in (spec.root, *spec.components.values()):
        for name, task in owner.dag.tasks.items():
            if task.component_ref.name not in spec.components:
                raise InputError(f"{path}: task {name} refers to component {task.component_ref.name!r}, not there")
    for name, component in spec.components.items():
        if not component.HasField("dag") and component.executor_label not in executors:
            raise InputError(f"{path}: component {name} refers to executor {component.executor_label!r}, not there")
    return sorted(
        executor.struct_value.fields["container"].struct_value.fields["image"].string_value
        for executor in executors.values()
    )
