"""The DAG: its parameters are the schema's, its steps cache as they should."""

from __future__ import annotations

from typing import Any

import pytest

from tuneline.config import SECTIONS
from tuneline_pipelines.finetune import build


@pytest.fixture(scope="module")
def spec() -> Any:
    return build(pinned=True).pipeline_spec


def test_every_key_of_the_schema_is_a_parameter_with_its_default_and_its_sentence(spec: Any) -> None:
    from google.protobuf import json_format

    parameters = dict(spec.root.input_definitions.parameters)
    del parameters["data_pin"]
    expected = {f"{name}_{key}" for name, schema in SECTIONS.items() for key in schema.model_fields}
    assert set(parameters) == expected
    for name, schema in SECTIONS.items():
        for key, field in schema.model_fields.items():
            parameter = parameters[f"{name}_{key}"]
            assert parameter.description == " ".join((field.description or "").split())
            if field.is_required():
                assert not parameter.is_optional
                continue
            value = json_format.MessageToDict(parameter.default_value)
            default = (
                field.default.model_dump(exclude_none=True) if hasattr(field.default, "model_dump") else field.default
            )
            assert value == default, f"{name}_{key}"


def test_parameters_have_types(spec: Any) -> None:
    from kfp.pipeline_spec import pipeline_spec_pb2

    kinds: Any = pipeline_spec_pb2
    names = {name: kinds.ParameterType.ParameterTypeEnum.Name(parameter.parameter_type)
             for name, parameter in spec.root.input_definitions.parameters.items()}  # fmt: skip
    assert names["data_train"] == "STRING"
    assert names["data_seed"] == "NUMBER_INTEGER"
    assert names["train_learning_rate"] == "NUMBER_DOUBLE"
    assert names["register_rules"] == "STRUCT"


@pytest.mark.parametrize("pinned", [True, False])
def test_only_prepare_is_cached_and_only_when_its_input_is_pinned(pinned: bool) -> None:
    tasks = build(pinned).pipeline_spec.root.dag.tasks
    cached = {name: task.caching_options.enable_cache for name, task in tasks.items()}
    assert cached == {"prepare": pinned, "train": False, "evaluate": False, "register": False}


def test_the_name_whose_champion_is_compared_with_reaches_the_step_that_evaluates(spec: Any) -> None:
    for step in ("evaluate", "register"):
        inputs = spec.root.dag.tasks[step].inputs.parameters
        assert inputs["register_name"].component_input_parameter == "register_name"
        assert "register_name" in spec.components[f"comp-{step}"].input_definitions.parameters


def test_artifacts_are_typed_so_that_the_ui_shows_them(spec: Any) -> None:
    kinds = {
        f"{name}.{output}": artifact.artifact_type.schema_title
        for name, component in spec.components.items()
        for output, artifact in component.output_definitions.artifacts.items()
    }
    assert kinds["comp-prepare.data"] == "system.Dataset"
    assert kinds["comp-prepare.report"] == "system.HTML"
    assert kinds["comp-prepare.metrics"] == "system.Metrics"
    assert kinds["comp-train.model"] == "system.Model"
    assert kinds["comp-train.metrics"] == kinds["comp-evaluate.metrics"] == "system.Metrics"
    assert kinds["comp-evaluate.confusion"] == "system.ClassificationMetrics"
    assert kinds["comp-evaluate.report"] == "system.HTML"
