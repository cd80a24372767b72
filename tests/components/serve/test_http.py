"""The service's answers: the classifier's own, and one clear line for whatever is no question."""

from __future__ import annotations

import json
import re
import shutil
import socket
import time
from typing import Any

import mlflow.pyfunc
import numpy as np
import pytest
from mlflow.pyfunc.scoring_server import invocations
from prometheus_client.parser import text_string_to_metric_families

from tests.components.serve.test_model import TEXTS
from tuneline.artifacts import read_json, write_json
from tuneline.serve import server
from tuneline.serve.model import Classifier
from tuneline.serve.service import Options

pytestmark = pytest.mark.medium

ASKED = [text for text in TEXTS if text][:40]


@pytest.fixture(scope="module")
def expected(house):
    """What the classifier answers to ASKED by itself."""
    return Classifier(house.folders["1"]).predict_proba(ASKED)


def test_an_answer_is_the_classifiers_and_names_its_version(service, expected):
    status, headers, told = service.ask("POST", "/predict", {"texts": ASKED})
    assert (status, headers["x-tuneline-model"]) == (200, "reviews/1")
    assert (told["model"], told["version"]) == ("reviews", "1")
    rows = told["predictions"]
    assert [[row["scores"]["no0"], row["scores"]["yes0"]] for row in rows] == pytest.approx(expected, abs=1e-5)
    assert [row["label"] for row in rows] == [["no0", "yes0"][best] for best in expected.argmax(1)]
    assert [row["score"] for row in rows] == [max(row["scores"].values()) for row in rows]


def test_the_models_own_decision_answers_and_not_the_highest_score(house, start, expected, tmp_path):
    folder = shutil.copytree(house.folders["1"], tmp_path / "decided")
    median = float(np.median(expected.max(1)))
    write_json(folder / "tuneline.json", read_json(folder / "tuneline.json") | {"abstain_below": median})
    labels, scores = Classifier(folder).told(expected)
    assert set(labels) > {""}
    version, rows = start(f"decided/{house.add(folder, 'decided')}").predict(ASKED)
    assert (version, [row["label"] for row in rows]) == ("1", labels)
    assert [row["score"] for row in rows] == pytest.approx(scores, abs=1e-5)


FORMS = {
    "inputs": {"inputs": ASKED},
    "inputs of rows of one": {"inputs": [[text] for text in ASKED]},
    "inputs by column": {"inputs": {"text": ASKED}},
    "instances": {"instances": ASKED},
    "dataframe_split": {"dataframe_split": {"columns": ["any name"], "data": [[text] for text in ASKED]}},
    "dataframe_split with an index": {
        "dataframe_split": {"index": [*range(40)], "columns": [0], "data": [[text] for text in ASKED]}
    },
    "dataframe_records": {"dataframe_records": [{"text": text} for text in ASKED]},
    "params": {"inputs": ASKED, "params": {"top_k": 3}},
}


def test_an_answers_body_does_not_wait_for_the_client_to_acknowledge_its_head():
    with server._listen(Options(port=0)) as listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize("form", FORMS)
def test_the_scoring_protocol_gives_the_frame_that_mlflows_server_gives(service, expected, form):
    status, headers, told = service.ask("POST", "/invocations", FORMS[form])
    assert (status, headers["x-tuneline-model"], told["version"]) == (200, "reviews/1", "1")
    rows = told["predictions"]
    assert list(rows[0]) == ["label", "score", "p(no0)", "p(yes0)"]
    assert [[row["p(no0)"], row["p(yes0)"]] for row in rows] == pytest.approx(expected, abs=1e-5)
    assert [row["label"] for row in rows] == [["no0", "yes0"][best] for best in expected.argmax(1)]


def test_mlflows_own_server_answers_the_same_to_the_same_bodies(house, service, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", house.uri)
    loaded = mlflow.pyfunc.load_model("models:/reviews/1")
    schema = loaded.metadata.get_input_schema()
    for form in ("inputs", "instances", "dataframe_split", "dataframe_records"):
        theirs = invocations(json.dumps(FORMS[form]), "application/json", loaded, schema)
        assert theirs.status == 200
        expected = json.loads(theirs.response)["predictions"]
        found = service.ask("POST", "/invocations", FORMS[form])[2]["predictions"]
        assert [list(row) for row in found] == [list(row) for row in expected]
        for one, other in zip(found, expected, strict=True):
            assert one.pop("label") == other.pop("label")
            assert one == pytest.approx(other, abs=1e-5)


DEEP = b'{"texts": ' + b"[" * 9_000 + b"]" * 9_000 + b"}"
BAD: list[tuple[str, bytes | dict[str, Any] | list[Any], int, str]] = [
    ("/predict", b"", 400, r"the body is empty; send {\"texts\""),
    ("/predict", b"  \n", 400, "the body is empty"),
    ("/predict", b'{"texts": ["good"', 400, "not JSON: Expecting ',' delimiter, line 1 column 18"),
    ("/predict", b'{"texts": ["good\xff"]}', 400, "not UTF-8, at byte 16"),
    ("/predict", DEEP, 400, "nested too deeply"),
    ("/predict", b'{"a":' * 3_000 + b"1" + b"}" * 3_000, 400, "nested too deeply"),
    ("/predict", {"texts": [[[["good"]]]]}, 400, r"texts\[0\]: a list given; a text is needed"),
    ("/predict", b'{"texts": [' + b"9" * 5_000 + b"]}", 400, "a number of too many digits"),
    ("/predict", ["good"], 400, "a JSON object is needed, such as"),
    ("/predict", {"text": ["good"]}, 400, "unknown key text; send"),
    ("/predict", {}, 400, "no texts; send"),
    ("/predict", {"texts": []}, 400, "texts: no text given"),
    ("/predict", {"texts": "good"}, 400, "texts: a text given; a list is needed"),
    ("/predict", {"texts": ["good", 1]}, 400, r"texts\[1\]: a number given; a text is needed"),
    ("/predict", {"texts": [None]}, 400, r"texts\[0\]: null given"),
    ("/predict", {"texts": [True]}, 400, r"texts\[0\]: a boolean given"),
    ("/predict", b'{"texts": [NaN]}', 400, r"texts\[0\]: a number given"),
    ("/predict", {"texts": [{"text": "good"}]}, 400, r"texts\[0\]: an object given"),
    ("/predict", {"texts": ["good", ""]}, 400, r"texts\[1\]: an empty text"),
    ("/predict", {"texts": [" \t\n\u2003"]}, 400, r"texts\[0\]: an empty text"),
    ("/predict", b'{"texts": ["a\\ud800b"]}', 400, r"texts\[0\]: half a surrogate pair at character 2"),
    ("/predict", {"texts": ["good"] * 51}, 413, "texts: 51 given; at most 50 a request"),
    ("/predict", {"texts": ["good " * 5_000]}, 413, "the body is too large; at most 20000 bytes"),
    ("/predict", {"texts": ["good"], "pairs": ["bad"]}, 400, "pairs: the model answers single texts"),
    ("/invocations", {"texts": ["good"]}, 400, "one key is needed, and no other: inputs, instances"),
    ("/invocations", {"inputs": ["good"], "instances": ["good"]}, 400, "one key is needed, and no other"),
    ("/invocations", {"inputs": [["good", "bad"]]}, 400, r"inputs\[0\]: a list given; a text is needed"),
    ("/invocations", {"inputs": [1.5]}, 400, r"inputs\[0\]: a number given"),
    ("/invocations", {"dataframe_split": []}, 400, "dataframe_split: an object is needed"),
    ("/invocations", {"dataframe_split": {"columns": ["a"], "data": ["good"]}}, 400, r"data\[0\]: a text given"),
    ("/invocations", {"dataframe_split": {"columns": ["a"], "data": [["x", "y"]]}}, 400, "2 cells given; 1 needed"),
    ("/invocations", {"dataframe_split": {"columns": ["a", "b"], "data": [["x", "y"]]}}, 400, "2 columns given"),
    ("/invocations", {"dataframe_records": ["good"]}, 400, r"dataframe_records\[0\]: a text given; an object"),
    ("/invocations", {"dataframe_records": [{"a": "x"}, {"b": "y"}]}, 400, r"records\[1\]: has other keys"),
    ("/invocations", {"inputs": {"a": ["x"], "b": ["y"]}}, 400, "inputs: 2 columns given; one column is needed"),
]


@pytest.mark.parametrize(("path", "body", "status", "told"), BAD, ids=[f"{path}-{told}" for path, _, _, told in BAD])
def test_a_body_that_is_no_question_gets_one_clear_line(service, path, body, status, told):
    found, _, answer = service.ask("POST", path, body)
    assert (found, set(answer)) == (status, {"error_code", "message"})
    assert re.search(told, answer["message"])
    assert "\n" not in answer["message"] and len(answer["message"]) < 200


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        ({"Content-Type": "text/plain"}, "Content-Type: application/json is needed"),
        ({"Content-Type": "text/csv"}, "Content-Type: application/json is needed"),
        ({"Content-Type": "application/x-www-form-urlencoded"}, "Content-Type: application/json is needed"),
        ({}, "Content-Type: application/json is needed"),
        ({"Content-Type": "application/json; charset=utf-16"}, "the charset must be utf-8"),
        ({"Content-Type": "application/json", "Content-Encoding": "gzip"}, "a compressed body is not taken"),
    ],
)
def test_a_body_of_another_kind_is_not_read(service, headers, told):
    status, _, answer = service.ask("POST", "/predict", {"texts": ["good"]}, headers)
    assert status == 415
    assert told in answer["message"]


@pytest.mark.parametrize(
    ("host", "status"),
    [("rebound.example.com", 403), ("rebound.example.com:80", 403), ("localhost:8080", 200), ("[::1]:8080", 200)],
)
def test_a_page_whose_name_was_pointed_to_this_machine_is_refused(service, host, status):
    headers = {"Content-Type": "application/json", "Host": host}
    assert service.ask("POST", "/predict", {"texts": ["good"]}, headers)[0] == status
    assert service.ask("GET", "/metrics", None, {"Host": host})[0] == status


@pytest.mark.parametrize(
    "kind", ["application/json; charset=UTF-8", "Application/JSON", "application/json;charset=utf-8"]
)
def test_json_is_json_however_it_is_written(service, kind):
    assert service.ask("POST", "/predict", {"texts": ["good"]}, {"Content-Type": kind})[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/predict", 405), ("POST", "/ready", 405), ("GET", "/nowhere", 404)]
)
def test_another_path_or_method_is_told_in_the_same_form(service, method, path, status):
    found, _, answer = service.ask(method, path)
    assert (found, set(answer)) == (status, {"error_code", "message"})


def test_a_body_without_a_length_is_cut_off_at_the_limit(service):
    with socket.create_connection(("127.0.0.1", service.port)) as connection:
        connection.sendall(
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        with pytest.raises(OSError):
            for _ in range(10_000):
                connection.sendall(b"1000\r\n" + b"x" * 4096 + b"\r\n")
                time.sleep(0.001)
        # the answer may have been lost to the reset; that the service goes on is what counts
    assert service.predict(["good"])[0] == "1"


def test_neither_texts_nor_what_is_wrong_with_them_gets_into_the_log(service):
    secret = "Mrs Miller of 12 Elm Street"
    service.predict([f"good {secret}"])
    for body in (
        f'{{"texts": ["{secret}"'.encode(),
        {"texts": [[secret]]},
        {"texts": [secret, ""]},
        {"inputs": secret},
    ):
        assert secret not in json.dumps(service.ask("POST", "/predict", body)[2])
        service.ask("POST", "/invocations", body)
    assert secret not in "".join(service.lines)


def test_probes_and_the_documentation_answer(service):
    assert service.ask("GET", "/health")[2] == {"status": "ok"}
    assert service.ask("GET", "/ready")[2] == {"status": "ready", "model": "reviews", "version": "1"}
    assert service.ask("GET", "/ping")[0] == service.ask("GET", "/version")[0] == 200
    api = service.ask("GET", "/openapi.json")[2]
    assert set(api["paths"]) == {"/predict", "/invocations", "/health", "/ready", "/metrics"}
    for path in ("/predict", "/invocations"):
        example = api["paths"][path]["post"]["requestBody"]["content"]["application/json"]["example"]
        assert service.ask("POST", path, example)[0] == 200


def test_the_documentation_page_asks_nobody_else_for_anything(service):
    status, headers, text = service.ask("GET", "/docs")
    assert status == 200
    assert "//" not in re.sub(r"\s", "", text).replace("<!", "")
    assert re.findall(r"(?:src|href)=['\"]?([^'\" >]+)", text) == ["/openapi.json", "/health", "/ready", "/metrics"]
    assert headers["content-security-policy"].startswith("default-src 'none'")


def test_the_metrics_are_what_prometheus_parses_and_count_what_was_asked(service):
    def read() -> dict[tuple[str, str], float]:
        status, headers, text = service.ask("GET", "/metrics")
        assert (status, headers["content-type"].split(";")[0]) == (200, "text/plain")
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        return {(sample.name, ",".join(sorted(sample.labels.values()))): sample.value for sample in samples}

    before = read()
    answers = [answer["label"] for answer in service.predict(ASKED)[1]]
    service.ask("POST", "/predict", b"{")
    after = read()
    grown = {key: value - before.get(key, 0) for key, value in after.items()}
    assert grown["tuneline_requests_total", "/predict,200"] == 1
    assert grown["tuneline_requests_total", "/predict,400"] == 1
    assert grown["tuneline_request_seconds_count", "/predict"] == 2
    assert grown["tuneline_answers_total", "1,yes0"] == answers.count("yes0") > 0
    assert grown["tuneline_pass_rows_sum", ""] == len(ASKED)
    assert after["tuneline_model", "1,reviews"] == 1
    assert after["tuneline_waiting_texts", ""] == 0
    assert after["tuneline_registry_looks_total", "ok"] > 0
