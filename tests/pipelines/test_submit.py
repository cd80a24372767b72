"""tuneline submit on the wire: what is sent, and in which order.

The server is a stand-in that holds each request against KFP's own typed models and protos (kfp_server.py); it runs
nothing. What a real server does beyond them is not proven here.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.pipelines.kfp_server import KfpServer
from tests.pipelines.submitting import Session, body_of

from tuneline.config import Recipe
from tuneline.errors import InputError
from tuneline.recipe import load_recipe
from tuneline_pipelines.recipes import shipped
from tuneline_pipelines.resources import Profile
from tuneline_pipelines.submit import cron, submit
from tuneline_pipelines.wire import RemoteError

pytestmark = pytest.mark.medium

NEW = [
    "GET healthz", "GET pipelines/names/tuneline-finetune", "POST pipelines", "GET pipelines/ID/versions",
    "POST pipelines/upload_version", "GET experiments", "POST experiments", "POST runs",
]  # fmt: skip
AGAIN = [
    "GET healthz", "GET pipelines/names/tuneline-finetune", "GET pipelines/ID/versions", "GET experiments", "POST runs",
]  # fmt: skip


def test_a_first_submission_makes_what_is_missing_and_then_the_run(
    server: KfpServer, session: Session, recipe: Recipe
) -> None:
    started = session.submit(recipe)
    assert server.told() == NEW
    assert body_of(server, "pipelines") == {"name": "tuneline-finetune", "display_name": "tuneline-finetune"}
    assert body_of(server, "experiments") == {"display_name": "topics"}
    run = body_of(server, "runs")
    (version,) = server.versions.values()
    assert set(run) == {
        "display_name", "experiment_id", "pipeline_version_reference", "runtime_config", "plugins_input",
    }  # fmt: skip
    assert run["pipeline_version_reference"] == {
        "pipeline_id": version.pipeline_id, "pipeline_version_id": version.pipeline_version_id,
    }  # fmt: skip
    sent = run["runtime_config"]["parameters"]
    assert sent == {**recipe.flat(), "data_pin": sent["data_pin"]}
    assert len(sent["data_pin"]) == 64
    assert started.id == next(iter(server.runs))
    assert started.links == {"kubeflow": f"{server.url}/#/runs/details/{started.id}"}


def test_an_equal_submission_reuses_the_version_and_other_arguments_do_too(
    server: KfpServer, session: Session, recipe: Recipe
) -> None:
    first = session.submit(recipe)
    server.calls.clear()
    second = session.submit(recipe)
    assert server.told() == AGAIN
    session.submit(load_recipe(shipped()["quickstart"], ["register.name=topics", "train.epochs=7"]))
    assert first.version == second.version
    assert second.reused == [f"pipeline version {first.version}"]
    assert len(server.versions) == 1
    assert len({run.display_name for run in server.runs.values()}) == len(server.runs) == 3


def test_another_cluster_s_needs_are_another_version(server: KfpServer, session: Session, recipe: Recipe) -> None:
    first = session.submit(recipe)
    tree = {"steps": {"train": {"memory_limit": "32Gi"}}, "server": {"endpoint": server.url}}
    second = submit(recipe, Profile.model_validate(tree), session.remote)[0]
    assert first.version != second.version
    assert len(server.pipelines) == 1


def test_the_steps_are_told_their_mlflow_experiment(server: KfpServer, session: Session, recipe: Recipe) -> None:
    session.submit(recipe)
    (spec,) = server.specs.values()
    for executor in spec.deployment_spec.fields["executors"].struct_value.fields.values():
        container = executor.struct_value.fields["container"].struct_value.fields
        env = {entry["name"]: entry["value"] for entry in container["env"].list_value}
        assert env["TUNELINE_EXPERIMENT"] == "topics"


def test_service_account_pipeline_root_and_experiment_come_from_the_profile(
    server: KfpServer, tmp_path: Path, recipe: Recipe
) -> None:
    keys = {"service_account": "trainer", "pipeline_root": "s3://bucket/tuneline", "experiment": "nightly"}
    session = Session(server, tmp_path, **keys, ui="https://kubeflow.example.com/_/pipeline",
                      mlflow="https://mlflow.example.com")  # fmt: skip
    started = session.submit(recipe)
    run = body_of(server, "runs")
    assert (run["service_account"], run["runtime_config"]["pipeline_root"]) == ("trainer", "s3://bucket/tuneline")
    assert body_of(server, "experiments") == {"display_name": "nightly"}
    assert run["plugins_input"] == {"mlflow": {"experiment_name": "nightly"}}
    assert started.links["kubeflow"].startswith("https://kubeflow.example.com/_/pipeline/#/runs/details/")
    assert started.links["mlflow"] == "https://mlflow.example.com/#/experiments?experimentSearchFilter=nightly"


def test_several_namespaces_are_served_each_its_own(server: KfpServer, tmp_path: Path, recipe: Recipe) -> None:
    server.multi_user = True
    Session(server, tmp_path, namespace="team-a").submit(recipe)
    assert server.told() == NEW
    assert body_of(server, "pipelines")["namespace"] == body_of(server, "experiments")["namespace"] == "team-a"
    with pytest.raises(InputError, match=r"profile\.server\.namespace: not given; this server serves several"):
        Session(server, tmp_path).submit(recipe)
    Session(server, tmp_path, namespace="team-b").submit(recipe)
    assert {found.namespace for found in server.experiments.values()} == {"team-a", "team-b"}


def test_the_mlflow_plugin_is_told_the_experiment_where_the_server_knows_it(
    server: KfpServer, session: Session, recipe: Recipe
) -> None:
    server.plugin = True
    started = session.submit(recipe)
    assert body_of(server, "runs")["plugins_input"] == {"mlflow": {"experiment_name": "topics"}}
    assert started.links["mlflow"] == f"https://mlflow.example.com/#/runs/{started.id}"


@pytest.mark.parametrize("version", ["2.16.1", "unknown"])
def test_an_older_server_is_sent_no_plugin_input(
    server: KfpServer, session: Session, recipe: Recipe, version: str
) -> None:
    server.version = version
    session.submit(recipe)
    assert "plugins_input" not in body_of(server, "runs")


def test_a_schedule_is_made_once_unpinned_and_does_not_catch_up(
    server: KfpServer, session: Session, recipe: Recipe
) -> None:
    started = session.submit(recipe, "0 3 * * 1")
    again = session.submit(recipe, "0  3 * * 1")
    assert (again.id, len(server.schedules)) == (started.id, 1)
    assert again.reused[1] == f"recurring run {started.name}"
    body = body_of(server, "recurringruns")
    assert body["trigger"] == {"cron_schedule": {"cron": "0 0 3 * * 1"}}
    assert (body["mode"], body["max_concurrency"], body["no_catchup"]) == ("ENABLE", "1", True)
    assert "data_pin" not in body["runtime_config"]["parameters"]
    (spec,) = server.specs.values()
    assert not spec.root.dag.tasks["prepare"].caching_options.enable_cache
    assert started.links["kubeflow"] == f"{server.url}/#/recurringrun/details/{started.id}"
    assert session.submit(recipe, "0 4 * * 1").id != started.id
    assert session.notes == [f"{started.name} is scheduled in this experiment too; disable it if this replaces it"]


def test_a_schedule_under_another_account_is_another_schedule(
    server: KfpServer, session: Session, tmp_path: Path, recipe: Recipe
) -> None:
    started = session.submit(recipe, "@daily")
    assert Session(server, tmp_path, service_account="trainer").submit(recipe, "@daily").id != started.id


def test_a_schedule_that_was_disabled_is_enabled_again(server: KfpServer, session: Session, recipe: Recipe) -> None:
    started = session.submit(recipe, "@daily")
    server.schedules[started.id].status = "DISABLED"
    assert session.submit(recipe, "@daily").id == started.id
    assert server.schedules[started.id].status == "ENABLED"


@pytest.mark.parametrize(
    ("given", "sent"),
    [("*/5 * * * *", "0 */5 * * * *"), ("30 0 3 * * MON-FRI", "30 0 3 * * MON-FRI"), ("@daily", "@daily"),
     ("@every 6h", "@every 6h")],
)  # fmt: skip
def test_a_crontab_s_five_fields_start_at_second_zero(given: str, sent: str) -> None:
    assert cron(given) == sent


@pytest.mark.parametrize("given", ["", "weekly", "* * * *", "* * * * * * *", "@never", "0 3 * * 1; rm"])
def test_what_is_no_schedule_is_refused_before_anything_is_sent(
    server: KfpServer, session: Session, recipe: Recipe, given: str
) -> None:
    with pytest.raises(InputError, match="--schedule"):
        submit(recipe, session.profile, session.remote, given or " ")
    assert server.calls == []


def test_a_schedule_that_only_the_server_can_refuse_is_told(
    server: KfpServer, session: Session, recipe: Recipe
) -> None:
    with pytest.raises(RemoteError, match=r"Schedule cron is not a supported format: '61' above 59 \(400\)"):
        session.submit(recipe, "61 3 * * 1")
    assert not server.schedules
