"""The pipeline on PostgreSQL, S3 and an MLflow server with passwords: no secret is told, and no fault leaves a mess."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from infra.local.stack import USER, Stack, stack

from tests.conftest import reviews
from tests.e2e.conftest import Project, require_postgres
from tests.e2e.faults import FaultyS3

pytestmark = pytest.mark.slow
STEPS = ("prepare", "train", "evaluate", "register")


@pytest.fixture(scope="module")
def s3() -> Iterator[FaultyS3]:
    """What stands between MLflow and the bucket."""
    with FaultyS3().serving() as proxy:
        yield proxy


@pytest.fixture(scope="module")
def servers(s3: FaultyS3) -> Iterator[Stack]:
    require_postgres()
    with stack(s3.in_front_of) as running:
        yield running


@dataclass
class Desk(Project):
    """A project whose MLflow is the stack's, and what its commands printed."""

    servers: Stack
    checkpoint: Path
    printed: list[str] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        return super().environment | self.servers.environment | {"OMP_NUM_THREADS": "1"}  # the model is tiny

    @property
    def store(self) -> Any:
        from mlflow import MlflowClient

        return MlflowClient(self.servers.mlflow_url)

    def recipe(self, name: str, *more: str) -> list[str]:
        return ["run", "text", "data.train=reviews.csv", f"model.name={self.checkpoint}", "model.max_length=32",
                "train.epochs=1", f"register.name={name}", "register.rules.beats_baseline=false", *more]  # fmt: skip

    def tuneline(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        done = super().tuneline(*arguments, **more)
        self.printed += [done.stdout, done.stderr]
        return done

    def runs(self, name: str) -> dict[str, Any]:
        """The runs of an experiment, by step; the pipeline's own is `pipeline`."""
        experiment = self.store.get_experiment_by_name(name)
        found = self.store.search_runs([experiment.experiment_id]) if experiment else []
        return {run.info.run_name if "mlflow.parentRunId" in run.data.tags else "pipeline": run for run in found}

    def statuses(self, name: str = "") -> dict[str, str]:
        return {step: run.info.status for step, run in self.runs(name).items()}

    def models(self) -> set[str]:
        return {model.name for model in self.store.search_registered_models()}


@pytest.fixture
def desk(
    tmp_path: Path, servers: Stack, s3: FaultyS3, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Desk]:
    for name, value in servers.environment.items():
        monkeypatch.setenv(name, value)
    folder = tmp_path / "desk"
    folder.mkdir()
    rows = "\n".join(f"{text},{label}" for text, label in reviews(400))
    (folder / "reviews.csv").write_text(f"text,label\n{rows}\n")
    yield Desk(folder, servers, tiny_checkpoint)
    s3.heal()


def failed(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of a command that a server failed."""
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.stderr.strip().endswith(line)
    _, _, log = line.partition("; log: ")
    assert not log or "Traceback" not in Path(log).read_text()
    return line


def everything(desk: Desk, folder: Path) -> dict[str, str]:
    """All that a run left anywhere, as text: files here, what was printed, the servers' logs, the database, S3."""
    store, left = desk.store, {"printed": "\n".join(desk.printed)}
    for experiment in store.search_experiments():
        for run in store.search_runs([experiment.experiment_id]):
            store.download_artifacts(run.info.run_id, "", str(folder))
            left["runs"] = left.get("runs", "") + json.dumps(run.to_dictionary())
    for version in store.search_model_versions():
        left["versions"] = left.get("versions", "") + str(dict(version))
    for place, root in {"artifacts": folder, "project": desk.folder}.items():
        files = [path for path in root.rglob("*") if path.is_file()]
        left[place] = "\n".join(f"{path} {path.read_bytes().decode('latin-1')}" for path in files)
    left |= {f"{name}.log": desk.servers.log(name) for name in ("postgres", "s3", "mlflow")}
    left["dump"] = desk.servers.database("pg_dump", "mlflow").stdout
    return left


def test_the_pipeline_runs_and_its_model_predicts_and_no_secret_is_told(desk: Desk, tmp_path: Path) -> None:
    command = desk.start(*desk.recipe("reviews"), "--json")
    seen = set()
    while command.poll() is None:
        seen |= {word for process in psutil.process_iter(["cmdline"]) for word in process.info["cmdline"] or []}
        time.sleep(0.5)
    out, told = command.communicate()
    desk.printed += [out, told]
    assert command.returncode == 0, told
    assert json.loads(out)["model"] == {"name": "reviews", "version": "1", "aliases": ["challenger", "champion"]}
    assert desk.statuses("reviews") == dict.fromkeys(("pipeline", *STEPS), "FINISHED")
    predicted = desk.tuneline("predict", "reviews@champion", "reviews.csv")
    assert predicted.returncode == 0, predicted.stderr
    assert len(predicted.stdout.splitlines()) == 401

    finished = "select count(*) from runs where status = 'FINISHED'"
    assert desk.servers.database("psql", "-d", "mlflow", "-tAc", finished).stdout.strip() == "5"
    with urllib.request.urlopen(f"{desk.servers.s3_url}/mlflow?list-type=2") as listing:
        assert f"{json.loads(out)['run_id']}/artifacts/model-" in listing.read().decode()

    folder = tmp_path / "downloaded"
    folder.mkdir()
    left = everything(desk, folder) | {"arguments": "\n".join(seen)}
    known = {"printed": "reviews", "runs": "model_name", "versions": "tuneline.gate", "artifacts": "model.safetensors",
             "project": "reviews", "postgres.log": "listening", "s3.log": "model.safetensors",
             "mlflow.log": "/api/2.0/mlflow/runs", "dump": "tuneline.weights_sha256",
             "arguments": "--artifacts-destination"}  # fmt: skip
    assert {place for place, text in known.items() if text in left[place]} == set(left)
    secrets = dict(desk.servers.secrets)
    secrets["basic"] = base64.b64encode(f"{USER}:{secrets['mlflow_password']}".encode()).decode()
    found = [(name, place) for name, secret in secrets.items() for place, text in left.items() if secret in text]
    # A request to S3 is signed by the secret key and names the access key, which is no secret.
    assert [case for case in found if case[0] != "s3_access_key"] == []


def test_without_the_password_nothing_is_answered(desk: Desk) -> None:
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{desk.servers.mlflow_url}/api/2.0/mlflow/experiments/search?max_results=1")
    request = urllib.request.Request(f"{desk.servers.mlflow_url}/", headers={"Host": "elsewhere.example.com"})
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(request)


def test_a_wrong_password_is_told_and_not_repeated(desk: Desk) -> None:
    done = desk.tuneline(*desk.recipe("locked"), MLFLOW_TRACKING_PASSWORD="planted-wrong")
    assert "the user or the password is refused; check MLFLOW_TRACKING_USERNAME" in failed(done)
    assert "planted-wrong" not in done.stderr
    assert desk.runs("locked") == {}


def test_a_server_that_is_down_at_the_start_is_told_at_once(desk: Desk) -> None:
    desk.servers.kill_mlflow()
    try:
        started = time.monotonic()
        done = desk.tuneline(*desk.recipe("down"))
        assert time.monotonic() - started < 120  # a step would wait four minutes
    finally:
        desk.servers.start_mlflow()
    assert f"MLflow at {desk.servers.mlflow_url}: not to be reached" in failed(done)
    assert desk.runs("down") == {}


def in_training(desk: Desk, *arguments: str, **more: str) -> subprocess.Popen[str]:
    """A run whose training has begun, and reported."""
    command = desk.start(*arguments, **more)
    while True:
        assert command.poll() is None, command.communicate()[1]
        logs = list((desk.folder / ".tuneline" / "logs").glob("*.log"))
        if logs and "[train] " in logs[0].read_text():
            return command
        time.sleep(0.2)


def test_a_server_killed_during_training_and_started_again_loses_nothing(desk: Desk) -> None:
    command = in_training(desk, *desk.recipe("gap", "train.epochs=150"), "--json")
    desk.servers.kill_mlflow()
    time.sleep(3)
    desk.servers.start_mlflow()
    out, told = command.communicate(timeout=900)
    assert command.returncode == 0, told
    runs = desk.runs("gap")
    assert {step: run.info.status for step, run in runs.items()} == dict.fromkeys(("pipeline", *STEPS), "FINISHED")
    steps = 150 * -(-json.loads(out)["data"]["rows"]["train"] // 16)
    losses = desk.store.get_metric_history(runs["train"].info.run_id, "loss")
    assert [point.step for point in losses] == list(range(1, steps + 1))
    assert len(desk.store.get_metric_history(runs["train"].info.run_id, "validation_loss")) == 150
    assert "gap" in desk.models()


def test_a_server_that_stays_away_fails_the_run_which_the_next_command_closes(desk: Desk) -> None:
    impatient = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
    command = in_training(desk, *desk.recipe("away", "train.epochs=150"), **impatient)
    desk.servers.kill_mlflow()
    try:
        out, told = command.communicate(timeout=900)
    finally:
        command.kill()
        desk.servers.start_mlflow()
    line = failed(subprocess.CompletedProcess([], command.returncode, out, told))
    assert "train failed: MLflow at" in line
    assert "not to be reached" in line
    assert desk.statuses("away") == {"pipeline": "RUNNING", "prepare": "FINISHED", "train": "RUNNING"}
    assert desk.tuneline("runs").returncode == 0
    assert desk.statuses("away") == {"pipeline": "KILLED", "prepare": "FINISHED", "train": "KILLED"}
    assert "away" not in desk.models()


@pytest.mark.parametrize("status", [403, 503])
def test_a_bucket_that_refuses_writes_fails_the_run_before_it_trains(desk: Desk, s3: FaultyS3, status: int) -> None:
    s3.refuse = status
    name = f"refused-{status}"
    line = failed(desk.tuneline(*desk.recipe(name), MLFLOW_HTTP_REQUEST_MAX_RETRIES="1"))
    assert "its artifact store, such as an S3 bucket, refuses or is away" in line
    assert s3.refused
    assert desk.statuses(name) == {"pipeline": "FAILED"}
    assert name not in desk.models()


def test_a_bucket_that_refuses_in_the_middle_of_the_model_leaves_no_version(desk: Desk, s3: FaultyS3) -> None:
    s3.refuse, s3.where, s3.after = 503, "/artifacts/model-", 2
    line = failed(desk.tuneline(*desk.recipe("half"), MLFLOW_HTTP_REQUEST_MAX_RETRIES="1"))
    assert "register failed: MLflow at" in line
    assert "its artifact store, such as an S3 bucket, refuses or is away" in line
    assert s3.after == 0
    assert s3.refused
    done = dict.fromkeys(("prepare", "train", "evaluate"), "FINISHED")
    assert desk.statuses("half") == {"pipeline": "FAILED", "register": "FAILED"} | done
    assert "half" not in desk.models()
    s3.heal()
    assert desk.succeed(*desk.recipe("half"))["model"]["version"] == "1"


STACK = [sys.executable, str(Path(__file__).parents[2] / "infra" / "local" / "stack.py"), "run", "--"]


@pytest.fixture
def temporary(servers: Stack) -> Iterator[Path]:
    """A temporary directory that the database's user may enter, unlike pytest's own."""
    del servers  # where it cannot start, these tests cannot either
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_however_the_stack_is_stopped_no_server_and_no_command_stays(temporary: Path, number: signal.Signals) -> None:
    told = "import os, time; print(os.environ['MLFLOW_TRACKING_URI'], flush=True); time.sleep(600)"
    process = subprocess.Popen(
        [*STACK, sys.executable, "-c", told], stdout=subprocess.PIPE, text=True,
        env=os.environ | {"TMPDIR": str(temporary)},
    )  # fmt: skip
    assert process.stdout
    url = process.stdout.readline().strip()
    urllib.request.urlopen(f"{url}/health").close()
    children = psutil.Process(process.pid).children(recursive=True)
    assert {"postgres"} < {child.name() for child in children}
    process.send_signal(number)
    assert process.wait(60) == (-number if number == signal.SIGKILL else 128 + number)
    assert psutil.wait_procs(children, timeout=60)[1] == []
    if number != signal.SIGKILL:
        assert list(temporary.iterdir()) == []


def test_the_stack_hands_on_the_commands_exit_status(temporary: Path) -> None:
    done = subprocess.run([*STACK, "sh", "-c", "exit 7"], env=os.environ | {"TMPDIR": str(temporary)}, check=False)
    assert done.returncode == 7
    assert list(temporary.iterdir()) == []
