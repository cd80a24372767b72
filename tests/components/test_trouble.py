"""A server's failure in one line, from the errors that real clients raise."""

from __future__ import annotations

import socket
import sqlite3
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from infra.local.stack import free_port

from tuneline.errors import InputError, ServiceError
from tuneline.step import step
from tuneline.tracking import PARENT, check_server, client
from tuneline.trouble import database_is_away, patiently, trouble


class Answers(HTTPServer):
    """Answers everything with one status and text."""

    status, text = 200, ""


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        answers: Any = self.server
        body = answers.text.encode()
        self.send_response(answers.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_PUT = do_POST = do_GET  # noqa: N815 - the names are http.server's

    def log_message(self, format: str, *args: Any) -> None:
        del format, args


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Answers]:
    with Answers(("127.0.0.1", 0), Handler) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{made.server_port}")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        yield made
        made.shutdown()


def raised(call: Any, *arguments: Any) -> Exception:
    with pytest.raises(Exception) as caught:
        call(*arguments)
    return caught.value


@pytest.mark.parametrize(
    ("status", "text", "told"),
    [
        (401, "You are not authenticated.", "the user or the password is refused; check MLFLOW_TRACKING_USERNAME"),
        (403, "Permission denied", "refused (403): the user may not do this"),
        (503, "no database", "answers with status 503 only; see the server's log"),
        (
            404,
            '{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "Run 7 not found"}',
            "RESOURCE_DOES_NOT_EXIST: Run 7 not found",
        ),
    ],
)
def test_what_a_server_answers_is_one_line(server: Answers, status: int, text: str, told: str) -> None:
    server.status, server.text = status, text
    line = trouble(raised(client().get_run, "0" * 32)) or ""
    assert line.startswith(f"MLflow at http://127.0.0.1:{server.server_port}: {told}")
    assert "\n" not in line


def test_an_artifact_store_that_refuses_is_told_apart(server: Answers, tmp_path: Any) -> None:
    from mlflow.artifacts import download_artifacts

    server.status = 500
    uri = f"http://127.0.0.1:{server.server_port}/api/2.0/mlflow-artifacts/artifacts/0/model"
    error = raised(lambda: download_artifacts(artifact_uri=uri, dst_path=str(tmp_path)))
    assert "its artifact store, such as an S3 bucket, refuses or is away" in (trouble(error) or "")


def test_a_server_that_is_not_there_is_told_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:hunter2@127.0.0.1:{port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    for error in (raised(check_server), raised(client().get_run, "0" * 32)):
        line = trouble(error) or ""
        assert line.startswith(f"MLflow at http://127.0.0.1:{port}: not to be reached")
        assert "hunter2" not in line


def test_a_server_that_takes_connections_and_says_nothing_is_told_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tuneline.tracking._BUSY_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        line = trouble(raised(check_server)) or ""
    assert line.startswith(f"MLflow at http://127.0.0.1:{port}: not to be reached (no answer in 0.1 seconds)")


def test_a_server_that_answers_at_all_is_there(server: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    for server.status in (200, 401, 404):
        check_server()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:hunter2@127.0.0.1:{server.server_port}/")
    check_server()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///nowhere.db")
    check_server()


def test_a_step_ends_with_one_line_and_status_1(
    server: Answers, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(PARENT, "0" * 32)
    server.status = 401
    with pytest.raises(SystemExit) as caught, step("train", {}):
        pytest.fail("a step without its run was begun")
    assert caught.value.code == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("tuneline: failed: MLflow at http://127.0.0.1:")
    assert "the user or the password is refused" in line


def test_s3s_own_errors_are_told() -> None:
    from botocore.exceptions import ClientError

    error = ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "PutObject")
    assert trouble(error) == "S3: An error occurred (AccessDenied) when calling the PutObject operation: no"


def test_a_study_s_database_that_is_away_is_one_line_without_its_password(tmp_path: Path) -> None:
    import optuna
    import sqlalchemy

    there = sqlalchemy.create_engine(f"postgresql+psycopg2://me:hunter2@127.0.0.1:{free_port()}/studies")
    line = trouble(raised(there.connect)) or ""
    assert line.startswith("the database: ")
    assert "Connection refused" in line
    assert "hunter2" not in line
    assert "\n" not in line
    study = optuna.create_study(storage=f"sqlite:///{tmp_path / 'studies.db'}")
    sqlite3.connect(tmp_path / "studies.db").execute("DROP TABLE study_user_attributes")
    assert trouble(raised(study.set_user_attr, "a", 1)) == "the study's database: no such table: study_user_attributes"


def test_a_database_that_is_away_is_asked_again_and_one_that_refuses_is_not(tmp_path: Path) -> None:
    import optuna
    import sqlalchemy

    there = sqlalchemy.create_engine(f"postgresql+psycopg2://me:hunter2@127.0.0.1:{free_port()}/studies")
    assert database_is_away(raised(there.connect))
    study = optuna.create_study(storage=f"sqlite:///{tmp_path / 'studies.db'}")
    database = sqlite3.connect(tmp_path / "studies.db", isolation_level=None)
    database.execute("ALTER TABLE study_user_attributes RENAME TO away")
    heard: list[str] = []

    def told(why: str) -> None:
        heard.append(why)
        if len(heard) == 2:
            database.execute("ALTER TABLE away RENAME TO study_user_attributes")

    patiently(lambda: study.set_user_attr("a", 1), database_is_away, told)
    assert heard == ["the study's database: no such table: study_user_attributes"] * 2
    assert study.user_attrs == {"a": 1}
    stop = threading.Event()
    stop.set()
    database.execute("ALTER TABLE study_user_attributes RENAME TO away")
    assert database_is_away(raised(patiently, lambda: study.set_user_attr("a", 1), database_is_away, told, stop))
    assert len(heard) == 2
    memory = sqlalchemy.create_engine("sqlite://").connect()
    memory.execute(sqlalchemy.text("CREATE TABLE rows (id INTEGER UNIQUE)"))
    insert = sqlalchemy.text("INSERT INTO rows VALUES (1)")
    memory.execute(insert)
    for error in (raised(memory.execute, insert), ZeroDivisionError(), InputError("x")):
        assert not database_is_away(error)


def test_a_database_whose_driver_is_not_installed_is_told_with_what_to_do() -> None:
    import sqlalchemy

    said = trouble(raised(sqlalchemy.create_engine, "mysql://me:hunter2@127.0.0.1/mlflow")) or ""
    assert said.startswith("the database that MLFLOW_TRACKING_URI names needs Python's MySQLdb; install it")


def test_other_errors_are_none_of_a_servers_trouble() -> None:
    import requests

    assert trouble(ServiceError("half of it")) == "half of it"
    for error in (InputError("x"), ZeroDivisionError(), requests.ConnectionError("http://hub/api/models")):
        assert trouble(error) is None
