"""Print, as JSON, the schemas of Kubeflow Trainer's and KServe's custom resources: `apiVersion/Kind` -> JSON schema.

Run by .venv-checks/bin/python, which has the packages that the two projects publish of their own Go types:
kubeflow-trainer-api (pydantic models, among them JobSet's and Kubernetes' own) and kserve (whose classes are read, not
imported: importing one starts its whole server). Unknown fields are refused, as an API server does with
fieldValidation=Strict. The CRDs' further rules (patterns, bounds, CEL) are in neither package.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import kubeflow_trainer_api.models as trainer
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

KINDS = {
    "trainer.kubeflow.org/v1alpha1/TrainJob": "TrainerV1alpha1TrainJob",
    "trainer.kubeflow.org/v1alpha1/TrainingRuntime": "TrainerV1alpha1TrainingRuntime",
    "trainer.kubeflow.org/v1alpha1/ClusterTrainingRuntime": "TrainerV1alpha1ClusterTrainingRuntime",
    "serving.kserve.io/v1beta1/InferenceService": "V1beta1InferenceService",
}
PLAIN = {"str": "string", "int": "integer", "bool": "boolean", "float": "number", "object": "object"}


def kserve_classes() -> dict[str, dict[str, Any]]:
    """KServe's classes as schemas, from the tables that its generator writes into each."""
    spec = importlib.util.find_spec("kserve")
    assert spec and spec.submodule_search_locations
    schemas = {}
    for path in sorted(Path(spec.submodule_search_locations[0], "models").glob("*.py")):
        text = path.read_text(encoding="utf-8")
        for node in ast.parse(text).body:
            if isinstance(node, ast.ClassDef):
                schemas[node.name] = _schema(node, text)
    return schemas


def _schema(node: ast.ClassDef, text: str) -> dict[str, Any]:
    tables = {
        target.id: ast.literal_eval(line.value)
        for line in node.body
        if isinstance(line, ast.Assign)
        for target in line.targets
        if isinstance(target, ast.Name) and target.id in ("openapi_types", "attribute_map")
    }
    names = tables["attribute_map"]
    required = re.findall(r"Invalid value for `(\w+)`, must not be `None`", text)
    return {
        "type": "object",
        "properties": {names[key]: _type(kind) for key, kind in tables["openapi_types"].items()},
        "required": sorted({names[key] for key in required}),
    }


def _type(kind: str) -> dict[str, Any]:
    if found := re.fullmatch(r"list\[(.+)\]", kind):
        return {"type": "array", "items": _type(found[1])}
    if found := re.fullmatch(r"dict\(str, (.+)\)", kind):
        return {"type": "object", "additionalProperties": _type(found[1])}
    return {"type": PLAIN[kind]} if kind in PLAIN else {"$ref": f"#/$defs/{kind}"}


def all_definitions() -> dict[str, Any]:
    """Trainer's, KServe's and Kubernetes' types by name, all of them strict."""
    models = [value for value in vars(trainer).values() if isinstance(value, type) and issubclass(value, BaseModel)]
    definitions = models_json_schema([(model, "validation") for model in models], by_alias=True)[1]["$defs"]
    definitions |= kserve_classes()
    referenced = set(re.findall(r'"#/\$defs/(\w+)"', json.dumps(definitions)))
    for name in referenced - set(definitions):
        core = "IoK8sApimachineryPkgApisMetaV1ObjectMeta" if name == "V1ObjectMeta" else f"IoK8sApiCore{name}"
        # A type that neither package has (Knative's URL, a quantity) is taken as it comes.
        definitions[name] = {"$ref": f"#/$defs/{core}"} if core in definitions else {}
    return {name: _strict(definition) for name, definition in definitions.items()}


def _strict(definition: dict[str, Any]) -> dict[str, Any]:
    properties = definition.get("properties", {})
    if "actual_instance" in properties:  # the generator's wrapper around "a number or a string"
        return {"type": ["string", "number"]}
    return {**definition, "additionalProperties": False} if properties else definition


if __name__ == "__main__":
    definitions = all_definitions()
    print(json.dumps({"kinds": KINDS, "definitions": definitions}))
