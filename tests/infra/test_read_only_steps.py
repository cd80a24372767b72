"""The policy that makes the root of pipelines' steps read-only: whom it touches, and what becomes of a pod."""

from __future__ import annotations

import copy
import json
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate

from tests.infra.render import Object, find

KEYS = {"volumes": "name", "containers": "name", "volumeMounts": "mountPath"}


def _pod() -> Object:
    """A step's pod as KFP and Argo make it, in what matters here."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "step", "labels": {"pipelines.kubeflow.org/v2_component": "true"}},
        "spec": {
            "containers": [
                {"name": "wait", "image": "argoexec"},
                {
                    "name": "main",
                    "image": "tuneline-train",
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                    "volumeMounts": [{"name": "kfp-launcher", "mountPath": "/kfp-launcher"}],
                },
            ],
            "volumes": [{"name": "kfp-launcher", "emptyDir": {}}],
        },
    }


def _evaluate(checks: Path, asked: list[tuple[str, Object]]) -> list[Any]:
    done = subprocess.run(
        [checks / "python", Path(__file__).parent / "cel.py"], input=json.dumps(asked), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _merge(pod: Any, patch: Any) -> Any:
    """As server-side apply does it: mappings by key, and lists of these kinds by the key of their elements."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(pod or {})
    for key, value in patch.items():
        if key in KEYS:
            known = {one[KEYS[key]]: one for one in merged.get(key, [])}
            merged[key] = list(
                (known | {one[KEYS[key]]: _merge(known.get(one[KEYS[key]]), one) for one in value}).values()
            )
        else:
            merged[key] = _merge(merged.get(key), value)
    return merged


def test_a_steps_own_container_gets_a_read_only_root_and_a_tmp(checks: Path) -> None:
    spec = find("platform/read-only-steps", "MutatingAdmissionPolicy", "tuneline-read-only-steps")["spec"]
    condition = spec["matchConditions"][0]["expression"]
    mutation = spec["mutations"][0]["applyConfiguration"]["expression"]
    pod, foreign, bare = _pod(), _pod(), _pod()
    foreign["spec"]["containers"].pop()
    bare["spec"].pop("volumes")
    once, *matches = _evaluate(checks, [(mutation, pod), *((condition, one) for one in (pod, bare, foreign))])
    assert matches == [True, True, False]

    after = _merge(copy.deepcopy(pod), once)
    kubernetes_validate.validate(after, "1.37", strict=True)
    wait, main = after["spec"]["containers"]
    assert wait == pod["spec"]["containers"][0]
    assert main["securityContext"] == {
        "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True,
    }  # fmt: skip
    assert [mount["mountPath"] for mount in main["volumeMounts"]] == ["/kfp-launcher", "/tmp"]
    assert _evaluate(checks, [(condition, after)]) == [False], "a second round would change it again"
