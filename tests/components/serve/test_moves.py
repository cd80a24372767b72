"""The service follows its alias: under load no request fails, a version that was tampered with is refused, and the end
comes after the last answer."""

from __future__ import annotations

import http.client
import json
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.components.serve.test_model import TEXTS
from tests.conftest import until
from tuneline.errors import InputError
from tuneline.serve.model import Classifier
from tuneline.serve.server import serve
from tuneline.serve.service import Options

pytestmark = pytest.mark.medium

ASKED = [text for text in TEXTS if text]
MOVES = 8


class Client(threading.Thread):
    """Asks over one connection, which the service may not close, until it is told to stop; keeps what it got."""

    def __init__(self, port: int, number: int) -> None:
        super().__init__(daemon=True)
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self.number, self.stopped = number, threading.Event()
        self.answers: list[tuple[int, str, dict[str, Any]]] = []
        self.failed: Exception | None = None

    def run(self) -> None:
        place = self.number
        try:
            while not self.stopped.is_set():
                text = ASKED[place % len(ASKED)]
                body = json.dumps({"texts": [text, text]})
                self.connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
                answer = self.connection.getresponse()
                self.answers.append((answer.status, text, json.loads(answer.read())))
                place += 7
        except Exception as error:
            self.failed = error


def failed_looks(running) -> float:
    lines = running.ask("GET", "/metrics")[2].splitlines()
    return sum(float(line.split()[-1]) for line in lines if 'registry_looks_total{result="failed"}' in line)


def champion_seen(running, version: str) -> None:
    until(lambda: running.ask("GET", "/ready")[2]["version"] == version, 60)


def test_no_request_fails_or_is_answered_wrongly_while_the_alias_moves(house, start):
    running = start("reviews@champion", "--poll-seconds", "0.02")
    clients = [Client(running.port, number) for number in range(8)]
    for client in clients:
        client.start()
    for move in range(MOVES):
        version = "21"[move % 2]
        house.point(version)
        champion_seen(running, version)
    for client in clients:
        client.stopped.set()
        client.join(60)
    answers = [answer for client in clients for answer in client.answers]
    assert [client.failed for client in clients] == [None] * 8
    assert {status for status, _, _ in answers} == {200}
    assert {told["version"] for _, _, told in answers} == {"1", "2"}
    for version, labels in (("1", ["no0", "yes0"]), ("2", ["no1", "yes1"])):
        rows = [(text, row) for _, text, told in answers if told["version"] == version for row in told["predictions"]]
        right = dict(zip(ASKED, Classifier(house.folders[version]).predict_proba(ASKED), strict=True))
        found = np.array([[row["scores"][label] for label in labels] for _, row in rows])
        assert found == pytest.approx(np.stack([right[text] for text, _ in rows]), abs=1e-5)
    metrics = running.ask("GET", "/metrics")[2]
    assert f"tuneline_version_changes_total {MOVES}.0" in metrics
    assert running.end() == 0


def artifact(house, version: str) -> Path:
    """The model folder of a version, where the registry keeps it."""
    uri = house.api.get_model_version_download_uri("reviews", version)
    (weights,) = Path(uri.removeprefix("file://")).rglob("model.safetensors")
    return weights.parent


@pytest.fixture(scope="module")
def following(house, start):
    """A service that looks often, for tests that leave the champion where it is said."""
    house.point("1")
    return start("reviews@champion", "--poll-seconds", "0.05")


def test_a_version_that_was_tampered_with_is_refused_and_the_old_one_goes_on(house, following, tmp_path):
    running = following
    house.point("1")
    champion_seen(running, "1")
    other = shutil.copytree(house.folders["2"], tmp_path / "other")
    (other / "vocab.txt").write_text("of another model\n")
    spoilt = house.add(other)
    weights = artifact(house, spoilt) / "model.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(raw)
    house.point(spoilt)
    told = running.wait_for("refused")
    assert f"refused: reviews/{spoilt}: data/other/model.safetensors: has changed since it was registered" in told
    assert told.rstrip().endswith("version 1 goes on")
    time.sleep(0.5)  # it looks again, and says and loads nothing
    assert running.predict(ASKED[:1])[0] == "1"
    assert sum(f"refused: reviews/{spoilt}" in line for line in running.lines) == 1
    metrics = running.ask("GET", "/metrics")[2]
    assert f'tuneline_refused_versions_total{{version="{spoilt}"}} 1.0' in metrics
    assert 'tuneline_model{model="reviews",version="1"} 1.0' in metrics
    house.point("2")
    running.wait_for("reviews/2 answers in the place of 1")
    assert running.predict(ASKED[:1])[0] == "2"


def test_a_version_that_was_tampered_with_is_not_served_from_the_start(house, start, tmp_path):
    other = shutil.copytree(house.folders["2"], tmp_path / "other")
    (other / "vocab.txt").write_text("of a third model\n")
    spoilt = house.add(other)
    (artifact(house, spoilt) / "evil.py").write_text("")
    running = start(f"reviews/{spoilt}", wait=False)
    assert running.process.wait(600) == 2
    running.wait_for("evil.py")
    assert running.lines == [
        f"tuneline: error: reviews/{spoilt}: data/other: evil.py does not belong in a model folder; not loaded\n"
    ]


def test_a_service_whose_log_nobody_reads_any_more_follows_its_alias(house, start):
    one, two = (house.add(house.folders[number], "unread") for number in "12")
    house.point(one, "unread")
    running = start("unread@champion", "--poll-seconds", "0.1", until="answers at")
    house.point(two, "unread")
    champion_seen(running, two)
    house.api.delete_registered_model_alias("unread", "champion")
    until(lambda: failed_looks(running) > 0)
    house.point(one, "unread")
    champion_seen(running, one)
    assert running.end() == 0


def test_an_alias_that_is_gone_is_told_once_and_the_version_goes_on(house, following):
    running = following
    house.point("1")
    champion_seen(running, "1")
    house.api.delete_registered_model_alias("reviews", "champion")
    assert running.wait_for("no version has the alias champion").rstrip().endswith("; version 1 goes on")
    time.sleep(0.3)
    assert running.predict(ASKED[:1])[0] == "1"
    house.point("1")
    running.wait_for("the registry names reviews/1 again")
    assert sum("no version has the alias champion" in line for line in running.lines) == 1
    assert 'tuneline_registry_looks_total{result="failed"}' in running.ask("GET", "/metrics")[2]


def slow_body(running) -> tuple[http.client.HTTPConnection, bytes]:
    """A request whose headers are sent, and whose body is not."""
    body = json.dumps({"texts": ASKED}).encode()
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=60)
    connection.putrequest("POST", "/predict")
    connection.putheader("Content-Type", "application/json")
    connection.putheader("Content-Length", str(len(body)))
    connection.putheader("Expect", "100-continue")
    connection.endheaders()
    assert connection.sock.recv(1024).startswith(b"HTTP/1.1 100")  # it waits for the body
    return connection, body


def lets_in(running) -> bool:
    """Whether somebody new is answered."""
    try:
        running.ask("GET", "/health")
    except OSError:
        return False
    return True


def test_sigterm_ends_it_after_the_last_answer(start):
    running = start("reviews/1")
    connection, body = slow_body(running)
    running.process.send_signal(signal.SIGTERM)
    until(lambda: not lets_in(running))
    assert running.process.poll() is None
    connection.send(body)
    answer = connection.getresponse()
    assert (answer.status, len(json.loads(answer.read())["predictions"])) == (200, len(ASKED))
    assert running.process.wait(30) == 0
    assert running.wait_for("ended")


def test_a_version_that_was_named_is_kept_and_while_it_lingers_it_sends_everybody_elsewhere(house, start):
    house.point("1")
    running = start("reviews/2", "--linger-seconds", "120", "--poll-seconds", "0.05")
    time.sleep(0.3)
    assert running.predict(ASKED[:1])[0] == "2"
    running.process.send_signal(signal.SIGTERM)
    until(lambda: running.ask("GET", "/ready")[0] == 503)
    status, headers, _ = running.ask("POST", "/predict", {"texts": ["good"]})
    assert (status, headers["connection"]) == (200, "close")
    running.process.send_signal(signal.SIGTERM)  # which waits for nothing more
    assert running.process.wait(60) == 0


def test_a_service_that_lingers_ends_by_itself(start):
    running = start("reviews/1", "--linger-seconds", "0.5")
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(60) == 0


def test_a_drain_that_takes_too_long_ends_all_the_same(start):
    running = start("reviews/1", "--drain-seconds", "0.5", "--timeout-seconds", "40")
    connection, _ = slow_body(running)
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(20) == 0
    connection.close()


def test_a_client_that_goes_away_in_the_middle_of_its_body_is_no_failure_of_the_server(start):
    running = start("reviews/1")
    connection, body = slow_body(running)
    connection.send(body[:10])
    time.sleep(0.2)
    connection.close()
    until(lambda: 'path="/predict",status="499"} 1.0' in running.ask("GET", "/metrics")[2])
    assert 'status="500"' not in running.ask("GET", "/metrics")[2]
    assert not [line for line in running.lines if "error" in line]


def test_more_than_may_wait_gets_503_and_when_to_come_again(house, start):
    house.point("1")
    running = start("reviews@champion", "--max-waiting", "60", "--pass-tokens", "8")
    found: list[tuple[int, dict[str, str]]] = []

    def ask() -> None:
        status, headers, _ = running.ask("POST", "/predict", {"texts": ASKED * 8})
        found.append((status, headers))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {status for status, _ in found} == {200, 503}
    assert all(int(headers["retry-after"]) >= 1 for status, headers in found if status == 503)
    assert running.predict(["good"])[0] == "1"


def test_a_request_that_takes_too_long_gets_503(start):
    # Long enough for the body to arrive, and a pass for nearly every text.
    running = start("reviews/1", "--timeout-seconds", "0.2", "--pass-tokens", "8")
    status, headers, told = running.ask("POST", "/predict", {"texts": ASKED * 16})
    assert (status, headers["retry-after"], told["message"]) == (503, "1", "not answered within 0.2 s")


@pytest.mark.parametrize(
    ("reference", "options", "told"),
    [
        ("nowhere@champion", {}, "nowhere@champion: not in the registry; registered models: reviews"),
        ("reviews", {}, "reviews: not a model; write MODEL@alias or MODEL/VERSION"),
        ("reviews/1", {"precision": "int8"}, "--precision: 'int8' given; allowed: fp32, bf16"),
        ("reviews/1", {"max_texts": 0}, "--max-texts: 0 given; more than 0 is needed"),
        ("reviews/1", {"port": 70_000}, "--port: 70000 given; allowed: 0 to 65535"),
        ("reviews/1", {"host": "203.0.113.1"}, "--host 203.0.113.1 --port 0: "),
    ],
)
def test_what_cannot_be_served_is_told_before_anything_is_answered(house, monkeypatch, reference, options, told):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", house.uri)
    with pytest.raises(InputError) as error:
        serve(reference, Options(**{"port": 0} | options))
    assert str(error.value).startswith(told)
