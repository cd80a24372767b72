"""What the stand-in for Kubeflow Pipelines refuses: bodies that are not KFP's typed models, IR that is none, arguments
that the pipeline does not take. Nothing here comes from tuneline."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any

import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2
from kfp_server_api import models

NATIVE: dict[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "float": (int, float), "bool": (bool,)}
FIELDS = {"name", "display_name", "id", "created_at", "storage_state"}
PLUGIN_FIELDS = {"experiment_name", "experiment_id", "disabled"}


class RefusedError(Exception):
    """The server's answer to what it does not take."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


def strict(value: Any, kind: str, where: str = "body") -> Any:
    """Deserialise into one of kfp_server_api's models: no unknown field, no wrong type, no unknown enum value."""
    if match := re.fullmatch(r"list\[(.*)\]", kind):
        _need(isinstance(value, list), where, kind, value)
        return [strict(item, match[1], f"{where}[{place}]") for place, item in enumerate(value)]
    if match := re.fullmatch(r"dict\(str, (.*)\)", kind):
        _need(isinstance(value, dict), where, kind, value)
        return {key: strict(item, match[1], f"{where}.{key}") for key, item in value.items()}
    if kind == "object":
        return value
    if kind == "datetime":
        return datetime.fromisoformat(value)
    if kind in NATIVE:
        _need(isinstance(value, NATIVE[kind]) and (kind == "bool" or not isinstance(value, bool)), where, kind, value)
        return value
    return _model(value, getattr(models, kind), where)


def _model(value: Any, model: Any, where: str) -> Any:
    if not model.openapi_types:
        _need(value in model.allowable_values, where, model.__name__, value)
        return value
    _need(isinstance(value, dict), where, model.__name__, value)
    names = {wire: name for name, wire in model.attribute_map.items()}
    if unknown := set(value) - set(names):
        raise RefusedError(f"{where}: unknown field {sorted(unknown)[0]!r} in {model.__name__}")
    return model(**{
        names[key]: strict(item, model.openapi_types[names[key]], f"{where}.{key}") for key, item in value.items()
    })  # fmt: skip


def _need(holds: bool, where: str, kind: str, value: Any) -> None:
    if not holds:
        raise RefusedError(f"{where}: {value!r} is not a {kind}")


def pipeline_spec(content: bytes) -> Any:
    """The PipelineSpec of uploaded IR, parsed with KFP's own protos as its second document, if any, is."""
    protos: Any = pipeline_spec_pb2
    spec = protos.PipelineSpec()
    try:
        first, *platforms = yaml.safe_load_all(content)
        json_format.ParseDict(first, spec)
        for platform in platforms:
            json_format.ParseDict(platform, protos.PlatformSpec())
    except (yaml.YAMLError, json_format.ParseError, ValueError, TypeError) as error:
        raise RefusedError(f"invalid pipeline spec: {error}") from None
    if not spec.root.dag.tasks:
        raise RefusedError("invalid pipeline spec: no tasks")
    return spec


def arguments(spec: Any, given: dict[str, Any]) -> None:
    """Refuse arguments that the pipeline does not declare, of another type, or missing."""
    kinds: Any = pipeline_spec_pb2
    declared = spec.root.input_definitions.parameters
    if unknown := set(given) - set(declared):
        raise RefusedError(f"Unrecognized input parameter: {sorted(unknown)[0]}")
    for name, parameter in declared.items():
        if name not in given:
            if not parameter.is_optional and not parameter.HasField("default_value"):
                raise RefusedError(f"Missing required input parameter: {name}")
            continue
        kind = kinds.ParameterType.ParameterTypeEnum.Name(parameter.parameter_type)
        if not _fits(kind, given[name]):
            raise RefusedError(f"Input parameter {name} requires {kind}, but {given[name]!r} was given")


def _fits(kind: str, value: Any) -> bool:
    if isinstance(value, bool):
        return kind == "BOOLEAN"
    types = {"NUMBER_INTEGER": int, "NUMBER_DOUBLE": (int, float), "STRING": str, "LIST": list, "STRUCT": dict}
    return isinstance(value, types[kind]) if kind in types else False


def plugins(given: dict[str, Any] | None, known: bool) -> None:
    """Refuse plugin input as KFP 2.17 does, or altogether as an older server."""
    if given is None:
        return
    if not known:
        raise RefusedError('unknown field "plugins_input"')
    if unknown := set(given.get("mlflow", {})) - PLUGIN_FIELDS:
        raise RefusedError(f"plugins_input.mlflow: unknown field {sorted(unknown)[0]!r}")


def cron(expression: str) -> None:
    """Refuse what robfig/cron, which KFP uses, does not parse: six fields, seconds first."""
    if expression.startswith("@"):
        return
    fields = expression.split(" ")
    limits = (59, 59, 23, 31, 12, 7)
    if len(fields) != 6:
        raise RefusedError(f"Schedule cron is not a supported format: expected 6 fields, found {len(fields)}")
    for text, limit in zip(fields, limits, strict=True):
        if any(int(number) > limit for number in re.findall(r"\d+", text)):
            raise RefusedError(f"Schedule cron is not a supported format: {text!r} above {limit}")


def selected(rows: list[Any], query: dict[str, str]) -> list[Any]:
    """The rows that a V2beta1Filter keeps, sorted as asked."""
    if query.get("filter"):
        for predicate in strict(json.loads(query["filter"]), "V2beta1Filter", "filter").predicates:
            if predicate.key not in FIELDS:
                raise RefusedError(f"filter: no field {predicate.key!r}")
            rows = [row for row in rows if (_field(row, predicate.key) == predicate.string_value)
                    == (predicate.operation == "EQUALS")]  # fmt: skip
    key, _, order = query.get("sort_by", "created_at asc").partition(" ")
    if key != "created_at":
        raise RefusedError(f"sort_by: no field {key!r}")
    return sorted(rows, key=lambda row: row.created_at, reverse=order == "desc")


def _field(row: Any, key: str) -> Any:
    """KFP filters runs, experiments and schedules by `name` on their display name, versions on their name."""
    return getattr(row, "name", None) or row.display_name if key == "name" else getattr(row, key)
