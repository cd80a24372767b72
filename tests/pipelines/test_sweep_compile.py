"""The sweep pipeline's IR: whole, repeatable, with the profile's resources on its workers and no secret in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.pipelines.kfp_checks import arguments, pipeline_spec
from typer.testing import CliRunner

from tuneline.config import Recipe
from tuneline.errors import InputError
from tuneline.recipe import load_recipe
from tuneline.search.cluster import STORAGE, pinned, read, written
from tuneline_pipelines import images
from tuneline_pipelines.cli import app
from tuneline_pipelines.compile import Search, check, compile_sweep
from tuneline_pipelines.recipes import shipped
from tuneline_pipelines.resources import Profile

pytestmark = pytest.mark.medium

DATABASE = {"name": "studies", "keys": {"url": STORAGE}}
TREE: dict[str, Any] = {
    "secrets": [DATABASE],
    "model_cache": {"claim": "models", "mount_path": "/cache"},
    "steps": {
        "train": {
            "image": "registry/own-train:1",
            "accelerator": {"type": "nvidia.com/mig-1g.10gb", "count": 1},
            "memory_limit": "32Gi",
            "node_selector": {"gpu": "h200"},
            "retries": 3,
        },
        "evaluate": {"image": "registry/own-evaluate:1", "memory_limit": "4Gi"},
    },
}
WORKERS, OTHERS = ("exec-search", "exec-repeat"), ("exec-rank", "exec-conclude")


@pytest.fixture
def recipe(reviews_csv: Path) -> Recipe:
    space = "{train.learning_rate: {low: 1.0e-5, high: 1.0e-3, log: true}, train.epochs: {low: 1, high: 4}}"
    return load_recipe(shipped()["text"], [f"data.train={reviews_csv}", f"sweep.space={space}"])


def compiled(folder: Path, recipe: Recipe, tree: dict[str, Any], budget: str = "9trials", workers: int = 3) -> Any:
    """Pipeline, platform, and the notes."""
    notes = compile_sweep(folder / "sweep.yaml", recipe, Profile.model_validate(tree), Search(budget, workers))
    return *yaml.safe_load_all((folder / "sweep.yaml").read_text()), notes


def test_the_protos_take_it_and_every_reference_is_there(recipe: Recipe, tmp_path: Path) -> None:
    compiled(tmp_path, recipe, TREE)
    assert len(check(tmp_path / "sweep.yaml")) == 5
    spec = pipeline_spec((tmp_path / "sweep.yaml").read_bytes())
    arguments(spec, {"recipe": written(recipe), "budget": "2h", "workers": ["a", "b"]})


def test_two_compilations_give_the_same_bytes(recipe: Recipe, tmp_path: Path) -> None:
    compiled(tmp_path, recipe, TREE)
    first = (tmp_path / "sweep.yaml").read_bytes()
    compiled(tmp_path, recipe, TREE)
    assert (tmp_path / "sweep.yaml").read_bytes() == first


def test_workers_fan_out_and_nobody_ranks_before_all_are_done(recipe: Recipe, tmp_path: Path) -> None:
    pipeline, _, _ = compiled(tmp_path, recipe, TREE)
    parameters = pipeline["root"]["inputDefinitions"]["parameters"]
    assert parameters["workers"]["defaultValue"] == ["1", "2", "3"]
    assert all(facts["description"] for facts in parameters.values())
    tasks = pipeline["root"]["dag"]["tasks"]
    assert set(tasks) == {"prepare", "for-loop-1", "rank", "for-loop-2", "conclude"}
    assert tasks["for-loop-1"]["parameterIterator"]["items"] == {"inputParameter": "pipelinechannel--workers"}
    assert "for-loop-1" in tasks["rank"]["dependentTasks"]
    assert "rank" in tasks["for-loop-2"]["dependentTasks"]
    assert "for-loop-2" in tasks["conclude"]["dependentTasks"]


def test_what_reads_or_writes_the_study_is_never_cached_and_pinned_data_may_be(recipe: Recipe, tmp_path: Path) -> None:
    pipeline, _, _ = compiled(tmp_path, recipe, TREE)
    loops = [pipeline["components"][f"comp-for-loop-{number}"]["dag"]["tasks"] for number in (1, 2)]
    tasks = {name: task for dag in (pipeline["root"]["dag"]["tasks"], *loops) for name, task in dag.items()}
    cached = {name for name, task in tasks.items() if task.get("cachingOptions") == {"enableCache": True}}
    assert {name for name in cached if not name.startswith("for-loop")} == {"prepare"}
    assert {"search", "rank", "repeat", "conclude"} <= set(tasks)


def test_workers_get_the_train_step_s_gpu_in_their_own_image_and_the_rest_gets_none(
    recipe: Recipe, tmp_path: Path
) -> None:
    pipeline, platform, _ = compiled(tmp_path, recipe, TREE)
    executors = pipeline["deploymentSpec"]["executors"]
    pods = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    for name in WORKERS:
        container = executors[name]["container"]
        assert container["image"].partition(":")[0] == "tuneline/tuneline-sweep"
        assert container["resources"]["accelerator"]["resourceType"] == "nvidia.com/mig-1g.10gb"
        assert container["resources"]["resourceMemoryLimit"] == "32Gi"
        assert pods[name]["nodeSelector"] == {"labels": {"gpu": "h200"}}
        assert pods[name]["pvcMount"][0]["mountPath"] == "/cache"
    for name in OTHERS:
        container = executors[name]["container"]
        assert container["image"].partition(":")[0] == "tuneline/tuneline-sweep"
        assert "accelerator" not in container["resources"]
        assert container["resources"]["resourceMemoryLimit"] == "4Gi"
    (worker,) = (
        task for name, task in pipeline["components"]["comp-for-loop-1"]["dag"]["tasks"].items() if name == "search"
    )
    assert worker["retryPolicy"]["maxRetryCount"] == 3


def test_steps_sweep_of_the_profile_says_what_workers_get_instead(recipe: Recipe, tmp_path: Path) -> None:
    own = {"image": "registry/own-sweep:1", "accelerator": {"count": 2}}
    pipeline, _, _ = compiled(tmp_path, recipe, TREE | {"steps": TREE["steps"] | {"sweep": own}})
    executors = pipeline["deploymentSpec"]["executors"]
    assert {executors[name]["container"]["image"] for name in WORKERS + OTHERS} == {"registry/own-sweep:1"}
    resources = executors["exec-search"]["container"]["resources"]
    assert resources["accelerator"]["resourceCount"] == "2"
    assert "resourceMemoryLimit" not in resources
    assert executors["exec-conclude"]["container"]["resources"]["resourceMemoryLimit"] == "4Gi"


def test_a_pushed_sweep_image_is_named_by_digest_in_all_that_runs_in_it(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNELINE_HOME", str(tmp_path / "home"))
    images.record("sweep", f"registry/tuneline-sweep@sha256:{'0' * 64}")
    pipeline, _, _ = compiled(tmp_path, recipe, {"secrets": [DATABASE]})
    executors = pipeline["deploymentSpec"]["executors"]
    assert {executors[name]["container"]["image"] for name in WORKERS + OTHERS} == {
        f"registry/tuneline-sweep@sha256:{'0' * 64}"
    }


def test_the_database_is_named_by_its_secret_and_nothing_else_of_it_is_in_the_file(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(STORAGE, "postgresql://me:hunter2@database/studies")  # of the one who compiles
    _, platform, _ = compiled(tmp_path, recipe, TREE)
    for pod in platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values():
        (secret,) = pod["secretAsEnv"]
        assert secret["secretName"] == "studies"
        assert secret["keyToEnv"] == [{"secretKey": "url", "envVar": STORAGE}]
    text = (tmp_path / "sweep.yaml").read_text()
    assert "hunter2" not in text
    assert "postgresql" not in text


def test_a_recipe_survives_as_an_argument_with_whole_numbers_whole(recipe: Recipe) -> None:
    again = read(written(recipe))
    assert again == recipe
    assert type(again.sweep.space["train.epochs"]["high"]) is int
    assert "\n" not in written(recipe)  # KFP writes it into a comment of the file


def test_data_that_only_the_cluster_sees_is_told_and_not_cached(recipe: Recipe, tmp_path: Path) -> None:
    elsewhere = load_recipe(shipped()["text"], ["data.train=/mnt/of-the-cluster/train.csv"])
    pipeline, _, notes = compiled(tmp_path, elsewhere, TREE)
    assert "/mnt/of-the-cluster/train.csv" in notes[0]
    assert pipeline["root"]["dag"]["tasks"]["prepare"]["cachingOptions"] == {}


def test_the_pin_changes_with_any_checkpoint_that_is_searched(
    recipe: Recipe, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    import shutil

    shutil.copytree(tiny_checkpoint, other := tmp_path / "other")
    space = f"sweep.space={{model.name: [{tiny_checkpoint}, {other}]}}"
    both = load_recipe(shipped()["text"], [
        f"data.train={recipe.data.train}", f"model.name={tiny_checkpoint}", "model.max_length=16", space])  # fmt: skip
    before = pinned(both)
    assert len(before) == 64
    text = (other / "tokenizer.json").read_text()
    (other / "tokenizer.json").write_text(text.replace("lovely", "lively"))
    assert pinned(both) != before


@pytest.mark.parametrize(
    ("budget", "price", "given"),
    [("20trials", 0, "20trials"), ("2h", 0, "7200s"), ("6usd", 2, "3600s"), ("6USD", 1.5, "4800s")],
)
def test_dollars_are_the_workers_seconds_together(
    recipe: Recipe, tmp_path: Path, budget: str, price: float, given: str
) -> None:
    priced = recipe.model_copy(update={"train": recipe.train.model_copy(update={"price_per_hour": price})})
    pipeline, _, _ = compiled(tmp_path, priced, TREE, budget)
    assert pipeline["root"]["inputDefinitions"]["parameters"]["budget"]["defaultValue"] == given


def test_the_command_writes_it(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "profile.yaml").write_text(yaml.safe_dump(TREE))
    done = CliRunner().invoke(app, [
        "compile", "--pipeline", "sweep", "text", f"data.train={recipe.data.train}", "--budget", "8trials",
        "--workers", "2", "--study", "mine", "--profile", str(tmp_path / "profile.yaml"),
        "-o", str(tmp_path / "sweep.yaml"),
    ])  # fmt: skip
    assert done.exit_code == 0, done.output
    parameters = next(yaml.safe_load_all((tmp_path / "sweep.yaml").read_text()))["root"]["inputDefinitions"]
    defaults = {name: facts["defaultValue"] for name, facts in parameters["parameters"].items()}
    assert (defaults["budget"], defaults["workers"], defaults["study"]) == ("8trials", ["1", "2"], "mine")
    assert json.loads(defaults["recipe"])["data"]["train"] == recipe.data.train


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--pipeline", "sweep"], "--pipeline sweep: needs a recipe, and a --profile"),
        (["--pipeline", "sweep", "text", "data.train=ROWS"], "--pipeline sweep: needs a recipe, and a --profile"),
        (["text", "data.train=ROWS", "--budget", "2h"], "are a sweep's; --pipeline finetune takes none"),
        (["--pipeline", "batch-predict", "--workers", "2"], "are a sweep's; --pipeline batch-predict takes none"),
        (["--pipeline", "sweep", "text", "data.train=ROWS", "--profile", "BARE"], f"none gives {STORAGE}"),
        (["--pipeline", "sweep", "text", "data.train=ROWS", "--profile", "FULL", "--budget", "a week"], "--budget: 'a"),
        (["--pipeline", "sweep", "text", "data.train=ROWS", "--profile", "FULL", "--budget", "5usd"],
         "--budget: dollars need the price of a worker; give train.price_per_hour=PRICE"),
        (["--pipeline", "sweep", "text", "data.train=ROWS", "--profile", "FULL", "train.distributed.nodes=2"],
         "train.distributed.nodes: 2 given; a sweep trains each trial in one pod"),
        (["--pipeline", "sweep", "text", "data.train=ROWS", "--profile", "FULL", "model.max_length=9999"],
         "model.max_length"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line_and_no_file(words: list[str], told: str, reviews_csv: Path, tmp_path: Path) -> None:
    for name, tree in (("BARE", {}), ("FULL", TREE)):
        (tmp_path / name).write_text(yaml.safe_dump(tree))
    places = {"BARE": str(tmp_path / "BARE"), "FULL": str(tmp_path / "FULL")}
    said = [places.get(word, word.replace("ROWS", str(reviews_csv))) for word in words]
    done = CliRunner().invoke(app, ["compile", *said, "-o", str(tmp_path / "out.yaml")])
    assert done.exit_code == 2
    assert told in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out.yaml").exists()


def test_a_password_under_env_is_refused_and_not_repeated() -> None:
    from tuneline.recipe import validate

    with pytest.raises(InputError, match=STORAGE) as caught:
        validate(Profile, {"env": {STORAGE: "postgresql://me:hunter2@database/studies"}})
    assert "hunter2" not in str(caught.value)
