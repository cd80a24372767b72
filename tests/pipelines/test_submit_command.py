"""The commands that speak to a cluster: submit, --wait, runs --remote, logs, cancel."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tests.pipelines.kfp_nodes import STEPS, pod_of
from tests.pipelines.kfp_server import Fault, KfpServer
from tests.pipelines.submitting import Command, profile_of

from tuneline_pipelines import follow

pytestmark = pytest.mark.medium


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
    (run,) = server.runs
    assert "error: Kubeflow Pipelines at" in done.stderr
    assert f"try again later; the run {run} goes on" in done.stderr
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
    next(line for line in process.stderr if line.startswith("prepare   running"))
    process.send_signal(number)
    out, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
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
    assert process.wait(timeout=60) == 130
    os.close(ours)
    assert [run.state for run in server.runs.values()] == ["CANCELED"]


def read_until(terminal: int, words: bytes) -> None:
    """Read a terminal until the words appear; its closing before them fails."""
    seen = b""
    while words not in seen:
        assert select.select([terminal], [], [], 60)[0], seen
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
