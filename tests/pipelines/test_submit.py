"""tuneline submit on the wire: what is sent, in which order, once, and how every refusal is told.

The server is a stand-in that holds each request against KFP's own typed models and protos (kfp_server.py); it runs
nothing. What a real server does beyond them is not proven here.
"""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kfp
import kfp_server_api
import pytest
import yaml
from tests.pipelines.kfp_checks import RefusedError, arguments, pipeline_spec, strict
from tests.pipelines.kfp_server import STEPS, Fault, KfpServer, pod_of
from typer.testing import CliRunner, Result

from tuneline.config import Recipe, load_recipe
from tuneline.errors import InputError
from tuneline_pipelines import compile, follow, wire
from tuneline_pipelines.cli import app
from tuneline_pipelines.recipes import shipped
from tuneline_pipelines.remote import Remote
from tuneline_pipelines.resources import Profile, load_profile
from tuneline_pipelines.submit import Submitted, cron, submit
from tuneline_pipelines.wire import RemoteError, UnreachableError

NEW = [
    "GET healthz", "GET pipelines/names/tuneline-finetune", "POST pipelines", "GET pipelines/ID/versions",
    "POST pipelines/upload_version", "GET experiments", "POST experiments", "POST runs",
]  # fmt: skip
AGAIN = [
    "GET healthz", "GET pipelines/names/tuneline-finetune", "GET pipelines/ID/versions", "GET experiments", "POST runs",
]  # fmt: skip
TOKEN = "hunter2-token"


COMPILED: dict[tuple[bool, str], tuple[bytes, list[str]]] = {}


@pytest.fixture(autouse=True)
def compile_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal pipelines are compiled once for all these tests; where the server is changes nothing in them."""

    def write(out: Path, defaults: dict[str, Any], pinned: bool, profile: Profile) -> list[str]:
        assert defaults == {}
        key = pinned, profile.model_dump_json(exclude={"server"})
        if key not in COMPILED:
            notes = compile.write(out, defaults, pinned, profile)
            COMPILED[key] = out.read_bytes(), notes
        out.write_bytes(COMPILED[key][0])
        return list(COMPILED[key][1])

    monkeypatch.setattr("tuneline_pipelines.submit.write", write)
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def server() -> Iterator[KfpServer]:
    running = KfpServer()
    yield running
    running.close()


@pytest.fixture
def recipe() -> Recipe:
    return load_recipe(shipped()["quickstart"], ["register.name=topics", "train.epochs=2"])


def profile_of(server: KfpServer, folder: Path, **keys: Any) -> Path:
    path = folder / "cluster.yaml"
    path.write_text(yaml.safe_dump({"server": {"endpoint": server.url, **keys}}))
    return path


class Session:
    """Submissions to a server with a profile; waiting is recorded, not done."""

    def __init__(self, server: KfpServer, folder: Path, **keys: Any) -> None:
        self.profile: Profile = load_profile(profile_of(server, folder, **keys))
        assert self.profile.server
        self.waited: list[float] = []
        self.notes: list[str] = []
        self.remote = Remote(self.profile.server, self.notes.append, self.waited.append)

    def submit(self, recipe: Recipe, schedule: str | None = None) -> Submitted:
        return submit(recipe, self.profile, self.remote, schedule)[0]


@pytest.fixture
def session(server: KfpServer, tmp_path: Path) -> Session:
    return Session(server, tmp_path)


def body_of(server: KfpServer, path: str) -> Any:
    (body,) = [call.body for call in server.calls if call.method == "POST" and call.path == f"/apis/v2beta1/{path}"]
    return body


# What is sent


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


# Failures that pass


@pytest.mark.parametrize("path", [".*/healthz", ".*/names/.*", ".*/versions", ".*/experiments"])
def test_whatever_question_fails_in_passing_is_asked_again(
    server: KfpServer, session: Session, recipe: Recipe, path: str
) -> None:
    server.faults = [Fault("GET", path, 500), Fault("GET", path, 0)]
    assert session.submit(recipe).id in server.runs
    assert len(session.waited) == 2


@pytest.mark.parametrize("path", [".*/pipelines", ".*/upload_version", ".*/experiments", ".*/runs"])
@pytest.mark.parametrize(("status", "carried_out"), [(429, False), (503, False), (503, True), (0, False), (0, True)])
def test_whatever_create_fails_in_passing_there_is_one_of_each(
    server: KfpServer, session: Session, recipe: Recipe, path: str, status: int, carried_out: bool
) -> None:
    server.faults = [Fault("POST", path, status, times=1 if carried_out else 2, after=carried_out)]
    started = session.submit(recipe)
    assert len(session.waited) == (1 if carried_out else 2)
    assert [len(kept) for kept in (server.pipelines, server.versions, server.experiments, server.runs)] == [1, 1, 1, 1]
    assert started.id in server.runs


def test_a_run_that_was_made_in_spite_of_a_503_is_found_again(
    server: KfpServer, session: Session, recipe: Recipe
) -> None:
    server.faults = [Fault("POST", ".*/runs", 503, after=True)]
    session.submit(recipe)
    assert server.told()[-3:] == ["POST runs", "GET runs", "GET runs"]
    query = json.loads(server.calls[-1].query["filter"])
    assert query["predicates"][0]["string_value"] == body_of(server, "runs")["display_name"]


def test_a_request_that_is_carried_out_too_late_leaves_one_run_that_is_not_cancelled(
    server: KfpServer, session: Session, recipe: Recipe
) -> None:
    server.faults = [Fault("POST", ".*/runs", 503, after="late")]
    started = session.submit(recipe)
    states = {number: run.state for number, run in server.runs.items()}
    assert sorted(states.values()) == ["CANCELING", "PENDING"]
    assert states[started.id] == "PENDING"
    assert any("a second run that a repeated request made" in note for note in session.notes)


def test_a_schedule_that_was_made_in_spite_of_a_503_is_not_made_again(
    server: KfpServer, session: Session, recipe: Recipe
) -> None:
    server.faults = [Fault("POST", ".*/recurringruns", 503, after=True)]
    assert session.submit(recipe, "0 3 * * 1").id in server.schedules
    assert len(server.schedules) == 1


@pytest.mark.parametrize(
    ("header", "waits"),
    [
        ({}, (0.8, 1.2)),
        ({"Retry-After": "7"}, (7, 7)),
        ({"Retry-After": "99999"}, (300, 300)),
        ({"Retry-After": "Thu, 01 Jan 2026 00:00:00 GMT"}, (0, 0)),
        ({"Retry-After": "soon"}, (0.8, 1.2)),
    ],
)
def test_the_server_says_how_long_to_wait(
    server: KfpServer, session: Session, recipe: Recipe, header: dict[str, str], waits: tuple[float, float]
) -> None:
    server.faults = [Fault("POST", ".*/runs", 429, headers=header)]
    session.submit(recipe)
    (waited,) = session.waited
    assert waits[0] <= waited <= waits[1]


def test_waits_grow_and_end(server: KfpServer, session: Session, recipe: Recipe) -> None:
    server.faults = [Fault("GET", ".*/healthz", 503, times=99)]
    with pytest.raises(UnreachableError, match=r"503 Service Unavailable \(told to fail\), 7 times; try again later"):
        session.submit(recipe)
    assert len(session.waited) == len(wire.PAUSES)
    assert all(earlier < later for earlier, later in zip(session.waited, session.waited[1:], strict=False))


def test_the_last_attempt_is_looked_up_too(server: KfpServer, session: Session, recipe: Recipe) -> None:
    times = len(wire.PAUSES) + 1
    server.faults = [Fault("POST", ".*/runs", 503, times=times - 1), Fault("POST", ".*/runs", 503, after=True)]
    assert session.submit(recipe).id in server.runs
    assert len(server.runs) == 1


# Refusals


def refusal(session: Session, recipe: Recipe) -> str:
    with pytest.raises(InputError) as caught:
        session.submit(recipe)
    told = str(caught.value)
    assert "\n" not in told
    assert TOKEN not in told
    return told


def test_a_wrong_bearer_token_is_one_line_that_names_where_it_comes_from(
    server: KfpServer, tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.token = "another"
    monkeypatch.setenv("KFP_TOKEN", TOKEN)
    session = Session(server, tmp_path, auth={"token_env": "KFP_TOKEN"})
    told = refusal(session, recipe)
    assert told == (
        f"Kubeflow Pipelines at {server.url}: asks for a login (401); profile.server.auth: "
        f"$KFP_TOKEN is expired or wrong; renew it"
    )
    assert session.waited == []


def test_a_server_that_repeats_the_token_does_not_make_us_do_so(
    server: KfpServer, tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KFP_TOKEN", TOKEN)
    body = json.dumps({"message": f"token {TOKEN} may not create"})
    server.faults = [Fault("POST", ".*/runs", 403, body=body)]
    told = refusal(Session(server, tmp_path, auth={"token_env": "KFP_TOKEN"}), recipe)
    assert told.endswith("not allowed: token *** may not create")


def test_a_mounted_token_is_read_anew_for_every_request(server: KfpServer, tmp_path: Path, recipe: Recipe) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")
    server.token = "first"
    session = Session(server, tmp_path, auth={"token_file": str(file)})
    started = session.submit(recipe)
    server.token = "second"
    file.write_text("second\n")
    assert session.remote.run(started.id).run_id == started.id
    file.unlink()
    with pytest.raises(InputError, match=r"auth\.token_file: .*token: cannot be read"):
        session.remote.run(started.id)


def test_a_session_cookie_logs_in_and_a_redirect_to_the_login_means_that_it_expired(
    server: KfpServer, tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.cookie = "oauth2_proxy_kubeflow=abc"
    monkeypatch.setenv("KFP_COOKIE", "oauth2_proxy_kubeflow=abc")
    Session(server, tmp_path, auth={"cookie_env": "KFP_COOKIE"}).submit(recipe)
    monkeypatch.setenv("KFP_COOKIE", f"oauth2_proxy_kubeflow={TOKEN}")
    told = refusal(Session(server, tmp_path, auth={"cookie_env": "KFP_COOKIE"}), recipe)
    assert "asks for a login (302); profile.server.auth: $KFP_COOKIE is expired or wrong; renew it" in told
    assert "name a token or a cookie there" in refusal(Session(server, tmp_path), recipe)


@pytest.mark.parametrize(
    ("auth", "value", "told"),
    [
        ({"token_env": "KFP_TOKEN"}, None, "auth.token_env: $KFP_TOKEN is empty"),
        ({"token_env": "KFP_TOKEN"}, f"a\n{TOKEN}", "auth.token_env: $KFP_TOKEN does not hold a bearer token in one"),
        ({"cookie_env": "KFP_TOKEN"}, TOKEN, "auth.cookie_env: $KFP_TOKEN does not hold a cookie written NAME=VALUE"),
        ({"token_file": "/nowhere/token"}, None, "auth.token_file: /nowhere/token: cannot be read"),
    ],
)
def test_a_credential_that_is_none_is_refused_before_anything_is_sent(
    server: KfpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, auth: Any, value: str | None, told: str
) -> None:
    monkeypatch.delenv("KFP_TOKEN", raising=False)
    if value:
        monkeypatch.setenv("KFP_TOKEN", value)
    with pytest.raises(InputError) as caught:
        Session(server, tmp_path, auth=auth)
    assert told in str(caught.value)
    assert TOKEN not in str(caught.value)
    assert server.calls == []


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"endpoint": "https://me:hunter2@kfp"}, "profile.server.endpoint: carries a user, a password, a query"),
        ({"endpoint": "kfp:8888"}, "profile.server.endpoint: not a URL; write http(s)://HOST"),
        ({"ui": "https://kfp?token=hunter2"}, "profile.server.ui: carries a user, a password, a query"),
        ({"pipeline_root": "s3://key:hunter2@bucket"}, "profile.server.pipeline_root: 's3://bucket' given"),
        ({"auth": {"token_env": "A", "cookie_env": "B"}}, "profile.server.auth.token_env: given beside another"),
        ({"auth": {"token": "hunter2"}}, "profile.server.auth.token: unknown key; did you mean token_"),
        ({"pipeline_root": "/mnt/x"}, "profile.server.pipeline_root: '/mnt/x' given"),
        ({"namespace": "Team A"}, "profile.server.namespace: 'Team A' given"),
    ],
)
def test_a_server_section_that_cannot_work_is_refused_and_no_secret_repeated(
    server: KfpServer, tmp_path: Path, keys: Any, told: str
) -> None:
    with pytest.raises(InputError) as caught:
        load_profile(profile_of(server, tmp_path, **keys))
    assert told in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_page_in_the_api_s_place_is_told(server: KfpServer, session: Session, recipe: Recipe) -> None:
    server.faults = [Fault("GET", ".*/healthz", 200, body="<!doctype html><title>Kubeflow</title>")]
    assert "something else than its API answers there; is profile.server.endpoint right?" in refusal(session, recipe)


def test_json_of_another_form_is_told(server: KfpServer, session: Session, recipe: Recipe) -> None:
    server.faults = [Fault("GET", ".*/experiments", 200, body='{"experiments": 7}')]
    with pytest.raises(Exception) as caught:
        session.submit(recipe)
    assert isinstance(caught.value, RemoteError | TypeError)


def test_what_the_server_refuses_is_told_in_its_words_and_not_tried_again(
    server: KfpServer, session: Session, recipe: Recipe
) -> None:
    body = json.dumps({"message": "quota of\nteam exceeded"})
    server.faults = [Fault("POST", ".*/runs", 400, body=body)]
    assert refusal(session, recipe).endswith("quota of team exceeded (400)")
    assert session.waited == []


def test_an_archived_experiment_is_told(server: KfpServer, session: Session, recipe: Recipe) -> None:
    session.submit(recipe)
    next(iter(server.experiments.values())).storage_state = "ARCHIVED"
    assert "the experiment 'topics' is archived; restore it there" in refusal(session, recipe)


def test_nothing_listening_is_told_with_the_endpoint(tmp_path: Path, recipe: Recipe) -> None:
    gone = KfpServer()
    gone.close()
    session = Session(gone, tmp_path)
    told = refusal(session, recipe)
    assert told == f"Kubeflow Pipelines at {gone.url}: no answer (NewConnectionError), 7 times; try again later"


def test_the_environment_s_proxy_is_heeded(server: KfpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.url.replace("//", "//me:hunter2@"))
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    session = Session(server, tmp_path, endpoint="http://kfp.invalid/pipeline")
    with pytest.raises(RemoteError, match="Not Found"):
        session.remote.health()
    assert (server.calls[0].path, server.calls[0].headers["host"]) == ("/pipeline/apis/v2beta1/healthz", "kfp.invalid")
    assert server.calls[0].headers["proxy-authorization"] == "Basic bWU6aHVudGVyMg=="
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert Session(server, tmp_path).remote.health()["multi_user"] is False
    assert "proxy-authorization" not in server.calls[1].headers


def test_tls_that_is_not_trusted_is_told_at_once(server: KfpServer, tmp_path: Path, recipe: Recipe) -> None:
    session = Session(server, tmp_path, endpoint=server.url.replace("http:", "https:"))
    told = refusal(session, recipe)
    assert "no safe connection (SSLError" in told
    assert session.waited == []


@pytest.mark.parametrize("override", ["data.train=my.csv", "model.name=./here", "data.test=data/test.parquet"])
def test_a_path_that_only_this_machine_sees_is_refused_before_anything_is_sent(
    server: KfpServer, session: Session, override: str
) -> None:
    recipe = load_recipe(shipped()["quickstart"], [override])
    with pytest.raises(InputError, match=f"{override.partition('=')[0]}: .* is a path on this machine"):
        session.submit(recipe)
    assert server.calls == []


def test_an_absolute_path_is_taken_and_told_where_no_volume_brings_it(
    server: KfpServer, session: Session, tmp_path: Path
) -> None:
    recipe = load_recipe(shipped()["quickstart"], ["data.train=/data/train.csv"])
    mounted = {"steps": {"prepare": {"volumes": [{"claim": "data", "mount_path": "/data"}]}}}
    server_key = {"server": {"endpoint": server.url}}
    notes = submit(recipe, Profile.model_validate(server_key), session.remote)[1]
    assert "data.train: /data/train.csv is on no volume that the profile mounts for prepare" in notes
    notes = submit(recipe, Profile.model_validate({**server_key, **mounted}), session.remote)[1]
    assert not any("no volume" in note for note in notes)


# The stand-in itself refuses what KFP refuses


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"display_name": "a", "run_name": "b"}, "unknown field 'run_name' in V2beta1Run"),
        ({"display_name": 7}, "body.display_name: 7 is not a str"),
        ({"runtime_config": {"params": {}}}, "body.runtime_config: unknown field 'params'"),
        ({"state": "DONE"}, "body.state: 'DONE' is not a V2beta1RuntimeState"),
    ],
)
def test_the_stand_in_refuses_what_is_not_in_the_typed_models(body: Any, told: str) -> None:
    with pytest.raises(RefusedError, match=told):
        strict(body, "V2beta1Run")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"train_speed": 1}, "Unrecognized input parameter: train_speed"),
        ({"train_epochs": "3"}, "train_epochs requires NUMBER_INTEGER"),
        ({"train_epochs": True}, "train_epochs requires NUMBER_INTEGER"),
        ({"register_rules": "{}"}, "register_rules requires STRUCT"),
        ({"data_train": None}, "data_train requires STRING"),
    ],
)
def test_the_stand_in_refuses_arguments_that_the_pipeline_does_not_take(
    server: KfpServer, session: Session, recipe: Recipe, change: Any, told: str
) -> None:
    session.submit(recipe)
    (spec,) = server.specs.values()
    arguments(spec, recipe.flat())
    with pytest.raises(RefusedError, match=told):
        arguments(spec, {**recipe.flat(), **change})
    with pytest.raises(RefusedError, match="Missing required input parameter: data_train"):
        arguments(spec, {})


def test_kfp_s_own_client_takes_the_stand_in_for_a_server(server: KfpServer, session: Session, recipe: Recipe) -> None:
    started = session.submit(recipe)
    with pytest.warns(FutureWarning, match="This client only works with Kubeflow Pipeline v2"):
        client = kfp.Client(host=server.url)
    (version,) = server.versions.values()
    run = client.run_pipeline(
        server.runs[started.id].experiment_id, "by KFP's client", pipeline_id=version.pipeline_id,
        version_id=version.pipeline_version_id, params=recipe.flat(),
    )  # fmt: skip
    assert client.wait_for_run_completion(run.run_id, timeout=30, sleep_duration=0).state == "SUCCEEDED"
    assert [found.run_id for found in client.list_runs(sort_by="created_at desc").runs] == [run.run_id, started.id]
    with pytest.raises(kfp_server_api.ApiException, match="Unrecognized input parameter: speed"):
        client.run_pipeline(run.experiment_id, "x", pipeline_id=version.pipeline_id,
                            version_id=version.pipeline_version_id, params={"speed": 1})  # fmt: skip


@pytest.mark.parametrize("content", [b"{", b"hello: 1", b"root: {dagger: 1}", b"{}"])
def test_the_stand_in_refuses_what_is_no_pipeline(content: bytes) -> None:
    with pytest.raises(RefusedError, match="invalid pipeline spec"):
        pipeline_spec(content)


def test_an_experiment_that_is_gone_when_the_run_is_made_is_told(
    server: KfpServer, session: Session, recipe: Recipe
) -> None:
    session.submit(recipe)
    (experiment,) = server.experiments.values()
    experiment.experiment_id = "00000000-0000-0000-0000-00000000dead"
    assert "Experiment 00000000-0000-0000-0000-00000000dead not found (404)" in refusal(session, recipe)


# The command


class Command:
    """The command in this process, with a profile in its environment and no waits."""

    def __init__(self, profile: Path) -> None:
        self.env = {"TUNELINE_PROFILE": str(profile), "COLUMNS": "200"}

    def __call__(self, *words: str, status: int = 0) -> Result:
        done = CliRunner().invoke(app, list(words), env=self.env)
        assert done.exit_code == status, (done.output, done.exception)
        assert "Traceback" not in done.output
        return done


@pytest.fixture
def tuneline(server: KfpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.setattr(follow, "EVERY", 0.01)
    monkeypatch.setattr(wire, "PAUSES", (0.01, 0.02, 0.03))
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(signal, "signal", lambda *_: before)  # of the process that runs the tests
    return Command(profile_of(server, tmp_path))


def test_submit_tells_links_and_json_gives_one_object(server: KfpServer, tuneline: Command) -> None:
    done = tuneline("submit", "register.name=topics", "--json")
    result = json.loads(done.stdout)
    (run,) = server.runs.values()
    assert (result["status"], result["id"], result["name"]) == ("submitted", run.run_id, run.display_name)
    assert f"kubeflow   {server.url}/#/runs/details/{run.run_id}" in done.stderr
    assert json.loads(tuneline("submit", "--schedule", "@daily", "--json").stdout)["status"] == "scheduled"


def test_wait_tells_each_step_s_states_once_and_succeeds(server: KfpServer, tuneline: Command) -> None:
    done = tuneline("submit", "register.name=topics", "--wait", "--json")
    told = done.stderr.splitlines()
    steps = [f"{step:9} {state}" for step in STEPS for state in ("running", "succeeded after 60 s")]
    followed = told[told.index("run       pending") :]
    assert followed == ["run       pending", "run       running", *steps, "the run succeeded"]
    result = json.loads(done.stdout)
    assert (result["status"], result["state"], result["seconds"]) == ("succeeded", "SUCCEEDED", 300)
    assert [step["step"] for step in result["steps"]] == ["prepare", "train", "evaluate", "register"]


def test_wait_ends_with_status_1_and_the_step_that_failed(server: KfpServer, tuneline: Command) -> None:
    server.attempts = {"prepare": 0, "train": 3}
    server.frames = [
        ("RUNNING", {"prepare": "SUCCEEDED", "train": "RUNNING"}),
        ("FAILED", {"prepare": "SUCCEEDED", "train": "FAILED"}),
    ]
    done = tuneline("submit", "--wait", status=1)
    (run,) = server.runs
    assert "prepare   reused from an earlier run with the same input" in done.stderr
    assert "train     running, attempt 3" in done.stderr
    assert "train     failed, attempt 3 after 60 s: OOMKilled (exit code 137)" in done.stderr
    assert f"the run failed in train; next: tuneline logs {run} --step train" in done.stderr


def test_wait_ends_with_status_130_where_someone_else_cancels(server: KfpServer, tuneline: Command) -> None:
    server.frames = [("RUNNING", {"prepare": "RUNNING"}), ("CANCELING", {}), ("CANCELED", {})]
    assert json.loads(tuneline("submit", "--wait", "--json", status=130).stdout)["status"] == "cancelled"


def test_wait_outlasts_a_server_that_is_away_for_a_while(server: KfpServer, tuneline: Command) -> None:
    server.faults = [Fault("GET", r".*/runs/[^/]+", 503, times=9), Fault("GET", r".*/runs/[^/]+", 0, times=2)]
    done = tuneline("submit", "--wait")
    assert "the run succeeded" in done.stderr
    assert len(server.runs) == 1


def test_wait_gives_up_where_the_server_stays_away_and_says_so(
    server: KfpServer, tuneline: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "PATIENCE", 0.0)
    server.faults = [Fault("GET", r".*/runs/[^/]+", 503, times=99)]
    done = tuneline("submit", "--wait", status=2)
    assert "error: Kubeflow Pipelines at" in done.stderr
    assert "kubeflow   http" in done.stderr


@pytest.mark.parametrize(
    ("flags", "number"), [(("--cancel-on-interrupt",), signal.SIGTERM), ((), signal.SIGINT)], ids=["cancel", "leave"]
)
def test_an_interrupted_wait_cancels_only_where_it_is_asked_to(
    server: KfpServer, tmp_path: Path, flags: tuple[str, ...], number: signal.Signals
) -> None:
    server.frames = [("RUNNING", {"prepare": "RUNNING"})]
    code = "from tuneline_pipelines import cli, follow; follow.EVERY = 0.05; cli.main()"
    words = ["submit", "--wait", "--json", *flags, "--profile", str(profile_of(server, tmp_path))]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words], env={**os.environ}, text=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr
    seen = next(line for line in process.stderr if line.startswith("prepare   running"))
    process.send_signal(number)
    out, told = process.communicate(timeout=20)
    assert (process.returncode, seen != "") == (130, True), told
    (run,) = server.runs.values()
    assert (run.state, json.loads(out)["status"]) == (("CANCELED", "cancelled") if flags else ("RUNNING", "running"))
    assert ("the run goes on; tuneline cancel" in told) == (not flags)


def test_on_a_terminal_an_interrupted_wait_asks_whether_to_cancel(server: KfpServer, tmp_path: Path) -> None:
    server.frames = [("RUNNING", {"prepare": "RUNNING"})]
    code = "from tuneline_pipelines import cli, follow; follow.EVERY = 0.05; cli.main()"
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", code, "submit", "--wait", "--profile", str(profile_of(server, tmp_path))],
        stdin=theirs, stdout=theirs, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    read_until(ours, b"prepare   running")
    process.send_signal(signal.SIGINT)
    read_until(ours, b"cancel the run on the cluster? [y/N]:")
    os.write(ours, b"y\n")
    read_until(ours, b"the run cancelled")
    assert process.wait(timeout=20) == 130
    os.close(ours)
    assert [run.state for run in server.runs.values()] == ["CANCELED"]


def read_until(terminal: int, words: bytes) -> None:
    """Read a terminal until the words appear; its closing before them fails."""
    seen = b""
    while words not in seen:
        seen += os.read(terminal, 4096)


def test_cancel_stops_a_run_by_name_or_by_id(server: KfpServer, tuneline: Command) -> None:
    for place in (0, 1):
        tuneline("submit")
        run = list(server.runs.values())[place]
        tuneline("cancel", (run.run_id, run.display_name)[place])
        assert run.state == "CANCELING"
    assert "error: Kubeflow Pipelines at" in tuneline("cancel", "nothing", status=2).stderr
    assert "has ended already (succeeded)" in tuneline("cancel", finished(server, tuneline), status=2).stderr


def test_remote_runs_are_listed_the_newest_first_over_pages(server: KfpServer, tuneline: Command) -> None:
    for name in ("topics", "topics", "mails"):
        tuneline("submit", f"register.name={name}")
    next(iter(server.runs.values())).storage_state = "ARCHIVED"
    listed = json.loads(tuneline("runs", "--remote", "--json").stdout)
    assert [run["name"].split("-")[0] for run in listed] == ["mails", "topics"]
    assert len(json.loads(tuneline("runs", "topics", "--remote", "--json").stdout)) == 1
    assert len(json.loads(tuneline("runs", "--remote", "--json", "--limit", "1").stdout)) == 1
    table = tuneline("runs", "--remote").stdout
    assert listed[0]["run_id"] in table
    assert "no experiment 'nothing'" in tuneline("runs", "nothing", "--remote", status=2).stderr


def finished(server: KfpServer, tuneline: Command) -> str:
    server.frames = server.frames[-1:]
    server.attempts = {"train": 2}
    server.logs = {
        pod_of("prepare"): "[prepare] 1/1 splits", pod_of("train"): "killed\n", pod_of("train", 2): '{"trained": 1}\n',
    }  # fmt: skip
    return json.loads(tuneline("submit", "--json").stdout)["id"]


@pytest.mark.parametrize("way", ["api", "ui"])
def test_logs_come_from_the_api_server_or_from_the_ui_in_the_steps_order(
    server: KfpServer, tuneline: Command, way: str
) -> None:
    run = finished(server, tuneline)
    server.log_ways = {way}
    done = tuneline("logs", run)
    assert done.stdout == '[prepare] 1/1 splits\nkilled\n{"trained": 1}\n'
    headed = [line for line in done.stderr.splitlines() if line.startswith("==")]
    assert headed == ["== prepare", "== train", "== train, attempt 2"]
    assert tuneline("logs", run, "--step", "prepare").stdout == "[prepare] 1/1 splits\n"


def test_logs_come_from_kubernetes_where_no_server_hands_them_out(
    server: KfpServer, tuneline: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = finished(server, tuneline)
    server.log_ways = {"kubernetes"}
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))
    told = tuneline("logs", run, "--step", "train", status=2).stderr
    assert "which may have been removed" in told
    assert "Kubernetes: this machine has no kubeconfig" in told
    config = {
        "clusters": [{"name": "c", "cluster": {"server": server.url}}], "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}], "current-context": "x",
    }  # fmt: skip
    (tmp_path / "kube").write_text(yaml.safe_dump(config))
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "kube"))
    assert tuneline("logs", run, "--step", "train").stdout == 'killed\n{"trained": 1}\n'


def test_a_step_without_a_log_is_told_with_those_there_are(server: KfpServer, tuneline: Command) -> None:
    run = finished(server, tuneline)
    told = tuneline("logs", run, "--step", "trian", status=2).stderr
    assert "no pod of step 'trian'; its steps: prepare, train, evaluate, register" in told


@pytest.mark.parametrize("words", [["submit"], ["runs", "--remote"], ["logs", "x"], ["cancel", "x"]])
def test_without_a_profile_or_without_its_server_the_command_says_what_to_give(
    tuneline: Command, tmp_path: Path, words: list[str]
) -> None:
    tuneline.env["TUNELINE_PROFILE"] = ""
    assert "--profile: not given; name the cluster's YAML file there" in tuneline(*words, status=2).stderr
    (tmp_path / "empty.yaml").write_text("labels: {team: nlp}\n")
    told = tuneline(*words, "--profile", str(tmp_path / "empty.yaml"), status=2).stderr
    assert "profile.server: not given" in told


def test_a_refusal_is_one_line_and_one_object(server: KfpServer, tuneline: Command) -> None:
    server.token = "asked"
    done = tuneline("submit", "--json", status=2)
    assert "asks for a login (401)" in json.loads(done.stdout)["error"]
    assert "--wait: a schedule has no end" in tuneline("submit", "--wait", "--schedule", "@daily", status=2).stderr
