"""The verbs about registered models, as the command line runs them, on a real registry."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tests.components.register.conftest import predictions
from tests.conftest import free_port
from tuneline.artifacts import write_json
from tuneline.config import RegisterConfig, Rules
from tuneline.predictions import save_training_keys
from tuneline.register.register import register
from tuneline.tracking import PARENT, open_pipeline_run, step_run
from tuneline_pipelines.cli import app

pytestmark = pytest.mark.medium

RULES = Rules(beats_baseline=False)


@pytest.fixture
def versions(store, trained, tmp_path, monkeypatch) -> Any:
    """desk/1, which is right on 180 of 200 test rows, and desk/2, right on 192; each of a pipeline's run of its own."""
    monkeypatch.setenv("TUNELINE_COMMIT", "c0ffee")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("data: {train: a.csv}\n")
    for wrong in (range(20), range(10, 18)):
        parent, _ = open_pipeline_run("desk", None, {"train_epochs": 3}, recipe, None)
        monkeypatch.setenv(PARENT, parent)
        evaluation = tmp_path / f"evaluation-{len(wrong)}"
        evaluation.mkdir()
        metrics = {"accuracy": 1 - len(wrong) / 200, "macro_f1": 0.9, "baseline_accuracy": 0.8}
        write_json(evaluation / "metrics.json", {"metrics": metrics, "speed": {}})
        answers = predictions(200, wrong)
        answers.facts["test_sha256"] = "7e57"
        answers.save(evaluation)
        save_training_keys(evaluation, answers.keys[:0])
        with step_run("register", {"register_name": "desk"}) as run:
            register(evaluation, trained, RegisterConfig(name="desk", rules=RULES), tmp_path / "version.json", run)
    return store


def tuneline(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def printed(*arguments: str) -> dict[str, Any]:
    """The one object of a command with --json that succeeds."""
    done = tuneline(*arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def failed(status: int, *arguments: str) -> str:
    """The one line of a command that ends so."""
    done = tuneline(*arguments)
    assert done.exit_code == status, done.output
    (line,) = done.stderr.splitlines()
    return line


def test_promote_rollback_and_history_move_the_champion_and_tell_of_it(versions):
    moved = printed("promote", "desk@challenger", "--expect", "1", "--reason", "better")
    assert (moved["status"], moved["champion"], moved["from"]) == ("succeeded", "2", "1")
    assert "the champion is version 2" in failed(3, "promote", "desk/1", "--expect", "1")
    assert printed("promote", "desk/2")["status"] == "unchanged"
    back = printed("rollback", "desk", "--reason", "no")
    assert (back["champion"], back["move"]["kind"]) == ("1", "rollback")
    found = printed("history", "desk")
    assert found["champion"] == "1"
    assert [(move["kind"], move["from"], move["to"], move["reason"]) for move in found["moves"]] == [
        ("first", None, "1", "the first that passed the gate"),
        ("promote", "1", "2", "better"),
        ("rollback", "2", "1", "no"),
    ]
    shown = tuneline("history", "desk")
    assert "desk: the champion is version 1" in shown.stdout
    assert "better" in shown.stdout


def test_history_shows_a_move_of_the_alias_outside(versions):
    versions.set_registered_model_alias("desk", "champion", "2")
    assert printed("history", "desk")["outside"] == {"alias": "2", "recorded": "1"}
    assert (
        "the alias names 2, the last recorded move 1: it was moved outside of tuneline"
        in tuneline("history", "desk").stdout
    )


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["promote", "desk/9"], "desk/9: no version 9; the latest: 1, 2"),
        (["promote", "desk"], "desk: not a model; write MODEL@alias or MODEL/VERSION"),
        (["promote", "desk/2", "--to", "desk"], "--to: desk is the version's own model"),
        (["rollback", "nobody"], "nobody: no model of that name; registered models: desk"),
        (["rollback", "desk"], "desk: no champion before version 1"),
        (["history", "desk.moves2"], "desk.moves2: no model of that name"),
        (["trace", "desk@nobody"], "desk@nobody: no version has the alias nobody"),
        (["compare", "desk/1", "abcdef"], "abcdef: no run of that id"),
    ],
)
def test_bad_input_is_told_in_one_line(versions, arguments, told):
    assert failed(2, *arguments).startswith(f"error: {told}")


def test_a_version_is_promoted_in_another_model_and_traced_back(versions):
    moved = printed("promote", "desk/2", "--to", "prod")
    assert (moved["model"], moved["champion"], moved["copied_from"]) == ("prod", "1", "desk/2")
    assert printed("promote", "desk/2", "--to", "prod")["status"] == "unchanged"
    assert printed("trace", "prod@champion")["copied_from"] == ["desk/2"]


def test_trace_tells_data_code_configuration_run_and_who(versions):
    found = printed("trace", "desk@champion")
    version = versions.get_model_version("desk", "1")
    assert found["run"]["id"] == version.run_id
    assert found["run"]["experiment"] == "desk"
    assert found["configuration"] == {"register_name": "desk", "train_epochs": "3"}
    assert found["data"]["sha256"] == version.tags["tuneline.data_sha256"]
    assert found["code"]["commit"] == "c0ffee"
    assert "@" in found["registered"]["by"]
    assert found["files"]["manifest_sha256"] == version.tags["tuneline.manifest_sha256"]
    assert [move["kind"] for move in found["moves"]] == ["first"]
    assert "desk version 1 (champion)" in tuneline("trace", "desk/1").stdout


def test_compare_pairs_the_answers_of_two_versions_on_the_same_rows(versions):
    found = printed("compare", "desk/1", "desk/2")
    assert found["metrics"]["accuracy"] == [0.9, 0.96]
    paired = found["paired"]
    assert (paired["rows"], paired["only_first_right"], paired["only_second_right"]) == (200, 0, 12)
    assert paired["accuracy_difference"]["value"] == pytest.approx(0.06)
    assert 0.02 < paired["accuracy_difference"]["low"] < 0.06 < paired["accuracy_difference"]["high"] < 0.12
    assert paired["p_value"] == pytest.approx(2 * 0.5**12)
    assert "exact McNemar p = 0.000488" in tuneline("compare", "desk/1", "desk/2").stdout


def test_a_run_is_compared_by_the_beginning_of_its_id_and_what_is_lacking_is_told(versions):
    run_id = versions.get_model_version("desk", "2").run_id
    found = printed("compare", "desk/1", run_id[:8])
    assert found["paired"] is None
    assert found["note"] == f"{run_id[:8]} has no stored answers; no paired test"
    assert found["note"] in tuneline("compare", "desk/1", run_id[:8]).stdout


def test_the_beginning_of_several_ids_names_no_run(versions):
    (experiment,) = versions.search_experiments(filter_string="name = 'desk'")
    begun = [versions.create_run(experiment.experiment_id).info.run_id[0] for _ in range(17)]  # of 16 digits
    twice = next(digit for digit in begun if begun.count(digit) > 1)
    done = tuneline("compare", "desk/1", twice)
    assert done.exit_code == 2
    assert f"error: {twice}: the beginning of several runs; give more of the id" in done.stderr


def test_a_history_from_which_entries_were_deleted_says_so(versions):
    printed("promote", "desk/2")
    versions.delete_model_version("desk.moves", "1")
    assert printed("history", "desk")["missing"] == [1]
    assert "warning: entries were deleted from the history: 1" in tuneline("history", "desk").stdout


def test_the_gate_judges_a_second_version_on_the_champions_answers(versions):
    tags = versions.get_model_version("desk", "2").tags
    assert tags["tuneline.gate"] == "passed"
    assert "accuracy +6.00 points" in tags["tuneline.gate.not_worse"]
    assert "this test set has decided 1 time before" in tags["tuneline.gate.not_worse"]


@pytest.fixture
def webhook(monkeypatch) -> Iterator[list[tuple[bytes, str]]]:
    """A server that keeps each body and its signature."""
    got: list[tuple[bytes, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append((self.rfile.read(int(self.headers["Content-Length"])), self.headers["X-Tuneline-Signature"]))
            self.send_response(500 if len(got) > 1 else 204)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("TUNELINE_MOVE_WEBHOOK", f"http://me:hunter2@127.0.0.1:{server.server_port}/moved?token=hunter2")
    monkeypatch.setenv("TUNELINE_MOVE_SECRET", "s3cret")
    yield got
    server.shutdown()
    server.server_close()


def test_after_a_move_the_command_and_the_webhook_hear_of_it(versions, webhook, tmp_path, monkeypatch):
    monkeypatch.setenv("TUNELINE_MOVE_COMMAND", f"cat > '{tmp_path}/moved.json'")
    moved = printed("promote", "desk/2")
    assert [(hook["hook"], hook["ok"]) for hook in moved["hooks"]] == [("command", True), ("webhook", True)]
    (body, signature) = webhook[0]
    assert signature == f"sha256={hmac.new(b's3cret', body, hashlib.sha256).hexdigest()}"
    told = json.loads(body)
    assert json.loads((tmp_path / "moved.json").read_text()) == told
    assert (told["model"], told["champion"], told["from"]) == ("desk", "2", "1")
    assert told["kserve"]["why"] == ["KServe does not fetch from where the artifacts lie"]  # here, a folder
    assert told["kserve"]["manifest"]["spec"]["predictor"]["containers"][0]["args"][0] == "desk/2"
    assert versions.get_model_version("desk", "2").tags["tuneline.serving"] == "stock"


def test_hooks_hear_of_a_move_also_where_how_to_serve_it_cannot_be_told(versions, webhook, own_store):
    own_store.mkdir(exist_ok=True)
    (own_store / "images.json").write_text("{}")
    moved = printed("promote", "desk/2")
    assert (moved["status"], moved["champion"]) == ("succeeded", "2")
    assert (moved["kserve"]["runtime"], moved["kserve"]["manifest"]) == (None, None)
    assert "images.json: not a JSON object of image digests" in moved["kserve"]["why"][0]
    assert json.loads(webhook[0][0])["champion"] == "2"


def test_hooks_that_do_not_end_or_are_not_there_are_told(versions, monkeypatch):
    monkeypatch.setattr("tuneline_pipelines.hooks._SECONDS", 0.2)
    monkeypatch.setenv("TUNELINE_MOVE_COMMAND", "sleep 30")
    monkeypatch.setenv("TUNELINE_MOVE_WEBHOOK", f"http://127.0.0.1:{free_port()}/moved?token=hunter2")
    moved = printed("promote", "desk/2")
    assert moved["champion"] == "2"
    command, called = moved["hooks"]
    assert (command["ok"], command["told"]) == (False, "did not end in 0.2 seconds")
    assert not called["ok"]
    assert called["told"].endswith(": ConnectionError")
    assert "hunter2" not in called["told"]


def test_a_hook_that_fails_is_told_without_secrets_and_undoes_nothing(versions, webhook, monkeypatch):
    monkeypatch.setenv("TUNELINE_MOVE_COMMAND", "exit 7")
    printed("promote", "desk/2")
    done = tuneline("rollback", "desk", "--json")
    assert done.exit_code == 0
    command, posted = json.loads(done.stdout)["hooks"]
    assert command == {"hook": "command", "ok": False, "told": "ended with status 7"}
    assert posted["told"] == "http://127.0.0.1: answered 500"
    assert "hunter2" not in done.output
    assert "/moved" not in done.output  # a webhook's path is its secret at most services
    assert printed("history", "desk")["champion"] == "1"
    assert len(webhook) == 2
