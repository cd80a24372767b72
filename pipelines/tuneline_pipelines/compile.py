"""tuneline compile: the pipeline as KFP's intermediate representation, checked with KFP's own protos."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import yaml

from tuneline.config import Recipe
from tuneline.errors import InputError, NotHereError
from tuneline_pipelines.resources import Profile, apply


def compile_pipeline(out: Path, recipe: Recipe | None, profile: Profile | None = None) -> list[str]:
    """Write the IR; a recipe's values become the parameters' defaults, a profile what the cluster is asked for.

    Sources and a checkpoint that this machine can read are pinned by content. The cluster may see what it cannot: such
    a pipeline is written all the same, without a pin, so that KFP never reuses data that may have changed.

    Returns:
        What the person should know, a sentence each.

    Raises:
        InputError: the file cannot be written, or a source or the checkpoint cannot be what is asked.
    """
    arguments, notes = arguments_of(recipe) if recipe else ({}, [])
    return notes + write(out, arguments, bool(arguments.get("data_pin")), profile)


def arguments_of(recipe: Recipe) -> tuple[dict[str, Any], list[str]]:
    """A recipe as the pipeline's arguments, with a pin where this machine can read what it names; and notes."""
    from tuneline.prepare.prepare import pin

    arguments = recipe.flat()
    try:
        return arguments | {"data_pin": pin(recipe.data, recipe.model)}, []
    except NotHereError as error:
        return arguments, [f"prepare will not be cached, because its input is not to be seen from here: {error}"]


def write(out: Path, defaults: dict[str, Any], pinned: bool, profile: Profile | None) -> list[str]:
    """Write the IR and check it.

    Args:
        out: a YAML file.
        defaults: of the parameters.
        pinned: prepared data may be reused where its pin is equal.
        profile: the cluster.

    Returns:
        What the person should know, a sentence each.

    Raises:
        InputError: the file cannot be written.
    """
    from kfp import compiler

    from tuneline_pipelines.finetune import build

    if out.suffix not in (".yaml", ".yml"):
        raise InputError(f"--output: {out}: unknown form {out.suffix!r}; allowed: .yaml, .yml")
    pipeline = build(pinned, partial(apply, profile) if profile else None)
    try:
        compiler.Compiler().compile(pipeline, package_path=str(out), pipeline_parameters=defaults)
    except OSError as error:
        raise InputError(f"{out}: cannot be written: {error.strerror}") from None
    if moving := [image for image in check(out) if "@sha256:" not in image]:
        return [
            f"{len(moving)} images are named by a tag, such as {moving[0]}, which may move and make KFP's cache lie; "
            f"name them by digest in a profile"
        ]
    return []


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
