"""A run's states, and its tasks in the form in which Kubeflow Pipelines 2.17 lists them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from kfp_server_api import models

STEPS = ("prepare", "train", "evaluate", "register")
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
Frame = tuple[str, dict[str, str]]
"""A run's state, and that of each step."""


def succeeding() -> list[Frame]:
    """The frames of a run whose steps succeed one after the other."""
    frames: list[Frame] = [("PENDING", {})]
    for place, step in enumerate(STEPS):
        before = dict.fromkeys(STEPS[:place], "SUCCEEDED")
        frames += [("RUNNING", {**before, step: "RUNNING"})]
    return [*frames, ("SUCCEEDED", dict.fromkeys(STEPS, "SUCCEEDED"))]


def nodes(steps: dict[str, str], attempts: dict[str, int]) -> list[Any]:
    """Task details in the form of KFP 2.17, which lists Argo's nodes: pods by name, children by node id.

    Args:
        steps: step -> state.
        attempts: step -> how many pods it had; one where it is not named.
    """
    listed = [
        _node("tuneline-finetune-x7k2p", "", "1", "RUNNING"),
        _node("root-driver", "dag-driver", "2", "SUCCEEDED"),
        _node("root", "root", "3", "RUNNING", children=("100",)),
    ]
    for place, (step, state) in enumerate(steps.items()):
        base, count = (place + 1) * 100, attempts.get(step, 1)
        following = (str(base + 100),) if place + 1 < len(steps) else ()  # the next driver hangs on the last pod
        pods = [str(base + 10 + number) for number in range(count)]
        listed += [
            _node(f"{step}-driver", "container-driver", str(base), "SUCCEEDED", children=(str(base + 1),)),
            _node(step, "container-executor", str(base + 1), state, children=(str(base + 2),)),
        ]
        if count == 0:  # from the cache
            listed.append(_node("executor", "container-impl", str(base + 2), "SKIPPED", children=following))
        else:
            listed.append(_node("executor", "retry-impl", str(base + 2), state, children=tuple(pods)))
        for number, pod in enumerate(pods):
            last = number == count - 1
            told = "OOMKilled (exit code 137)" if state == "FAILED" or not last else ""
            below, own = (following, state) if last else ((), "FAILED")
            listed.append(_node(f"executor({number})", "container-impl", pod, own, children=below, error=told))
    return listed


def pod_of(step: str, attempt: int = 1) -> str:
    """The name of a step's pod."""
    return f"tuneline-finetune-x7k2p-system-container-impl-{(STEPS.index(step) + 1) * 100 + 9 + attempt}"


def _node(name: str, template: str, number: str, state: str, children: tuple[str, ...] = (), error: str = "") -> Any:
    workflow = "tuneline-finetune-x7k2p"
    started = EPOCH + timedelta(seconds=int(number))
    never = datetime.fromtimestamp(0, UTC)
    return models.V2beta1PipelineTaskDetail(
        task_id=str(UUID(int=int(number))), display_name=name, state=state, start_time=started,
        end_time=started + timedelta(seconds=60) if state in ("SUCCEEDED", "FAILED") else never,
        pod_name=f"{workflow}-system-{template}-{number}" if template else workflow,
        child_tasks=[models.PipelineTaskDetailChildTask(pod_name=f"{workflow}-{child}") for child in children],
        error=models.GoogleRpcStatus(code=13, message=error) if error else None,
    )  # fmt: skip
