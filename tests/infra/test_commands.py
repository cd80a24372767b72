"""The very commands of the pods, with their own environment, run as processes against a real PostgreSQL.

Not shown here: that they run in the image, under its user and read-only root (tests/docker has the images), and that
Kubernetes wires them as the manifests say.
"""

from __future__ import annotations

import base64
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import free_port, until
from tests.infra.render import Object, containers, find, missing, pod_templates
from tests.infra.render import render as rendered

pytestmark = pytest.mark.slow

POSTGRES = Path("/usr/lib/postgresql")
SECRET, USER_SECRET = "planted-password", "planted-password-of-a-user"


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An empty PostgreSQL on the loopback interface; how libpq finds it."""
    found = sorted(POSTGRES.glob("*/bin/initdb"))
    if not found:
        missing("no PostgreSQL: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(dir="/tmp"))  # not below pytest's: the user postgres must reach it
    options: dict[str, object] = {"cwd": "/"}
    if os.geteuid() == 0:
        user = pwd.getpwnam("postgres")
        os.chown(folder, user.pw_uid, user.pw_gid)
        options |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    (folder / "password").write_text(SECRET)
    port = str(free_port())
    binaries, data = found[-1].parent, folder / "data"
    subprocess.run(
        [binaries / "initdb", "-D", data, "-U", "mlflow", "--auth=scram-sha-256", f"--pwfile={folder}/password"],
        check=True, capture_output=True, **options,
    )  # fmt: skip
    server = subprocess.Popen(
        [binaries / "postgres", "-D", data, "-p", port, "-k", folder, "-c", "listen_addresses=127.0.0.1"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options,
    )  # fmt: skip
    place = {"PGHOST": "127.0.0.1", "PGPORT": port, "PGUSER": "mlflow", "PGPASSWORD": SECRET}
    try:
        until(lambda: _psql(place, "select 1", "postgres") == "1", 120, 0.2)
        _psql(place, "create database mlflow", "postgres")
        yield place
    finally:
        server.send_signal(signal.SIGINT)  # without waiting for clients
        server.wait(30)
        shutil.rmtree(folder)


def _psql(place: dict[str, str], query: str, name: str = "mlflow") -> str | None:
    done = subprocess.run(
        ["psql", "-d", name, "-XAtqc", query], env={**os.environ, **place}, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() if done.returncode == 0 else None


def _container(kind: str, name: str, container: str) -> Object:
    template = next(pod_templates(find("base", kind, name)))
    return next(one for one in containers(template["spec"]) if one["name"] == container)


def _environment(container: Object, place: dict[str, str]) -> dict[str, str]:
    """What the pod would have: its ConfigMaps, its plain variables and Secrets, on this machine's addresses."""
    maps = {one["metadata"]["name"]: one["data"] for one in rendered("base") if one["kind"] == "ConfigMap"}
    secrets = {"username": "mlflow", "password": SECRET, "flask-secret-key": "planted-key"}
    merged: dict[str, str] = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for source in container.get("envFrom", []):
        merged |= maps[source["configMapRef"]["name"]] if "configMapRef" in source else {}
    for variable in container.get("env", []):
        value = variable.get("value") or secrets[variable["valueFrom"]["secretKeyRef"]["key"]]
        merged[variable["name"]] = value
    return merged | place


def _run(container: Object, place: dict[str, str], **more: str) -> subprocess.CompletedProcess[str]:
    words = [*container["command"], *container.get("args", [])]
    return subprocess.run(
        words, env=_environment(container, place) | more, capture_output=True, text=True, check=False, timeout=600
    )


def _files(name: str, folder: Path) -> Path:
    data = next(
        one["data"]
        for one in rendered("base")
        if one["kind"] == "ConfigMap" and one["metadata"]["name"].startswith(name)
    )
    for key, text in data.items():
        (folder / key).write_text(text)
    return folder


def _answer(port: int, path: str, host: str, login: str = "", body: bytes | None = None) -> int:
    headers = {"Host": host, "Content-Type": "application/json"}
    if login:
        headers["Authorization"] = "Basic " + base64.b64encode(login.encode()).decode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body, headers)
    try:
        with urllib.request.urlopen(request) as reply:
            return reply.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def test_migrate_serve_back_up_and_restore(database: dict[str, str], tmp_path: Path) -> None:
    files = _files("mlflow-files", tmp_path)
    wait = _container("Deployment", "mlflow", "schema")
    script = [str(files / "wait_for_schema.py") if word.startswith("/etc/mlflow") else word for word in wait["command"]]
    wait = {**wait, "command": script}
    early = _run(wait, database, SCHEMA_TIMEOUT="1")
    assert early.returncode == 1
    assert "the migration Job has not finished" in early.stderr
    wrong = _run(wait, {**database, "PGPASSWORD": "wrong"}, SCHEMA_TIMEOUT="1")
    assert "password authentication failed" in wrong.stderr
    assert "Traceback" not in early.stderr + wrong.stderr

    for step in ("tracking", "users"):
        done = _run(_container("Job", "migrate", step), database)
        assert done.returncode == 0, done.stderr
        assert SECRET not in done.stdout + done.stderr
    assert _run(wait, database).returncode == 0

    _serve_and_ask(database, files, tmp_path)
    _back_up_and_restore(database, tmp_path)


def _serve_and_ask(database: dict[str, str], files: Path, tmp_path: Path) -> None:
    server = _container("Deployment", "mlflow", "mlflow")
    port = free_port()
    words = [
        {"5000": str(port), "0.0.0.0": "127.0.0.1"}.get(word, word) for word in [*server["command"], *server["args"]]
    ]
    home = tmp_path / "home"
    home.mkdir()
    here = {"MLFLOW_AUTH_CONFIG_PATH": str(files / "basic_auth.ini"), "HOME": str(home)}
    log = tmp_path / "server.log"
    with log.open("w") as stream:
        process = subprocess.Popen(words, env=_environment(server, database) | here, stdout=stream, stderr=stream)
    try:
        probe = server["readinessProbe"]["httpGet"]["path"]
        until(lambda: _answer(port, probe, f"10.1.2.3:{port}") == 200, 120, 0.2)
        ask, login = "/api/2.0/mlflow/experiments/search?max_results=1", f"mlflow:{SECRET}"
        for host in (
            "mlflow:5000",
            "mlflow.tuneline:5000",
            "mlflow.tuneline.svc",
            "mlflow.tuneline.svc.cluster.local:5000",
        ):
            assert _answer(port, ask, host, login) == 200, host
        assert _answer(port, ask, f"localhost:{port}", login) == 200
        assert _answer(port, ask, "evil.example.com", login) == 403
        assert _answer(port, ask, "mlflow:5000") == 401
        assert _answer(port, ask, "mlflow:5000", "mlflow:wrong") == 401
        _add_a_user(_environment(server, database) | here, files, port)
    finally:
        process.terminate()
        process.wait(30)
    assert SECRET not in log.read_text()  # nor USER_SECRET, which begins alike
    assert {path.parts[len(home.parts)] for path in home.rglob("*")} <= {".config", ".cache"}


def _add_a_user(environment: dict[str, str], files: Path, port: int) -> None:
    words = [sys.executable, files / "add_user.py", "pipelines"]
    where = environment | {"MLFLOW_ADDRESS": f"http://127.0.0.1:{port}"}
    for secret, status in ((USER_SECRET, 0), ("short", 1)):
        done = subprocess.run(words, input=secret, env=where, capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stderr
        assert secret not in done.stdout
        assert "Traceback" not in done.stderr

    def ask(what: str, body: str) -> int:
        login = f"pipelines:{USER_SECRET}"
        return _answer(port, f"/api/2.0/mlflow/{what}", "mlflow:5000", login, body.encode())

    assert ask("experiments/create", '{"name": "of-the-pipelines"}') == 200
    assert ask("registered-models/create", '{"name": "topics"}') == 200
    assert ask("experiments/delete", '{"experiment_id": "0"}') == 403
    assert ask("users/create", '{"username": "another", "password": "long-enough-1"}') == 403


def _back_up_and_restore(database: dict[str, str], tmp_path: Path) -> None:
    scripts, backups = _files("backup-scripts", tmp_path), tmp_path / "backups"
    backups.mkdir()

    def run(name: str, **more: str) -> subprocess.CompletedProcess[str]:
        container = _container("CronJob", name, name)
        words = [word.replace("/scripts", str(scripts)) for word in container["command"]]
        return _run({**container, "command": words}, database, BACKUPS=str(backups), **more)

    for old in range(3):
        (backups / f"mlflow-2020010{old}T000000Z.dump").write_text("old")
    _psql(database, "insert into experiments (name, lifecycle_stage) values ('kept', 'active')")
    done = run("backup", BACKUPS_KEPT="2")
    assert done.returncode == 0, done.stderr
    assert re.search(r"backup: \S+\.dump, \d{5,} bytes", done.stdout)
    assert sorted(path.name[:12] for path in backups.iterdir())[0] == "mlflow-20200"
    assert len(list(backups.iterdir())) == 2

    _psql(database, "delete from experiments where name = 'kept'")
    assert run("restore", BACKUP="mlflow-none.dump").returncode == 1
    broken = run("restore", BACKUP="mlflow-20200102T000000Z.dump")
    assert broken.returncode != 0
    assert _psql(database, "select count(*) from experiments where name = 'kept'") == "0"
    done = run("restore")
    assert done.returncode == 0, done.stderr
    assert _psql(database, "select count(*) from experiments where name = 'kept'") == "1"
    assert _psql(database, "select count(*) from users where username = 'pipelines'") == "1"

    failed = run("backup", PGPASSWORD="wrong")
    assert failed.returncode != 0
    assert len(list(backups.glob("*.dump"))) == 2
