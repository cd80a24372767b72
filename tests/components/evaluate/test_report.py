"""The page of models drawn by chance: what it says at 2 and at 151 classes, and that no text of the data runs in it."""

from __future__ import annotations

import json
import re
from dataclasses import asdict

import numpy as np
import pytest

from tests.components.evaluate.test_metrics import drawn
from tuneline.artifacts import PreparedData
from tuneline.comparison import compare
from tuneline.config import Rules
from tuneline.evaluate import findings, words
from tuneline.evaluate.examples import doubtful, errors
from tuneline.evaluate.findings import find
from tuneline.evaluate.matrix import READABLE, drawing, picture, shown
from tuneline.evaluate.report import write_page
from tuneline.evaluate.slices import parts
from tuneline.predictions import NONE, Predictions, keys
from tuneline.register.gate import Evidence, judge

ATTACK = "<script>alert(1)</script> {{ 7 * 7 }} <img src=x onerror=alert(1)>"
SPEED = {
    "latency_p50_ms": 5.0,
    "latency_p99_ms": 9.0,
    "latency_texts": 20.0,
    "texts_per_second": 300.0,
    "size_mb": 90.0,
}


def page(folder, rows, classes, baseline=None):
    """The page's text, and what it shows."""
    labels, chances = drawn(rows, classes)
    names = [f"intent {number}" for number in range(classes)]
    texts = [f"{ATTACK} {row}" for row in range(rows)]
    found = parts(np.arange(rows) % 60, np.arange(rows) % 60 > 50, labels, names, texts)
    test = findings.TestSet(texts, None, labels, names, keys(texts), found, "0" * 64)
    rival = np.full_like(chances, 1 / classes) if baseline is None else baseline(chances)
    result = find(test, chances, rival, lambda asked: chances[: len(asked)], SPEED, "cpu, 2 cores")
    manifest = PreparedData(
        names, {"train": 9, "validation": 9, "test": rows}, {"all": "f" * 64, "test": "0" * 64}, 60, "head",
        {"test": 5}, "pkg:some-model", {"train": "a.csv"}, 0,
    )  # fmt: skip
    picture(result.confusion, names, folder / "confusion.png")
    answered = test.answered(chances, chances.argmax(1), rival.argmax(1), {})
    write_page(folder / "report.html", folder / "confusion.png", result, manifest, test, answered, chances)
    return (folder / "report.html").read_text(encoding="utf-8"), result


@pytest.mark.parametrize(("rows", "classes"), [(400, 2), (3000, 151)])
def test_the_page_is_whole_and_runs_nothing_of_the_data(tmp_path, rows, classes):
    text, result = page(tmp_path, rows, classes)
    assert "&lt;script&gt;alert(1)" in text
    assert "<script" not in text
    assert "{{ 7 * 7 }}" in text
    assert not re.findall(r'(?:src|href)="(?!data:)', text)
    changed = sum(row["n"] > 0 for row in result.probes)
    assert text.count("<svg viewBox=") == text.count("<svg")  # else a narrow column cuts them instead of shrinking
    assert text.count("<svg") == 9 + min(len(result.slices), 25) + changed + min(classes, 30)
    assert text.count("<img") == (classes > READABLE)
    assert "nan" not in text
    assert len(text) < 1_500_000


def confused(classes, pairs):
    """Ten rows a class, of which so many of the first of each pair were called the second."""
    matrix = 10 * np.eye(classes, dtype=int)
    for true, told, count in pairs:
        matrix[true, told] += count
        matrix[true, true] -= count
    return matrix.tolist()


def test_all_of_few_classes_are_drawn_in_their_order():
    assert shown(confused(5, [(3, 1, 4)])) == [0, 1, 2, 3, 4]


def test_of_many_classes_those_confused_most_are_drawn_beside_each_other():
    chain = [(100 + 2 * number, 7 + 2 * number, 9 - number % 3) for number in range(10)]
    drawn = shown(confused(151, [*chain, (140, 107, 1)]))
    assert len(drawn) == 22
    for true, told, _ in chain:
        assert abs(drawn.index(true) - drawn.index(told)) == 1
    many = [(number, number + 60, 1 + number % 9) for number in range(60)]
    assert len(shown(confused(151, many))) == READABLE
    assert shown(confused(151, [])) == []


def test_a_cell_tells_its_classes_and_counts_and_nothing_in_a_name_is_markup():
    matrix = [[8, 2], [0, 9]]
    text = drawing(matrix, ["<b>&", "x" * 90], [10, 10], [0, 1])  # one text of the second class got no answer
    assert f"<title>&lt;b&gt;&amp; → {'x' * 90}: 2 of 10 (20%)</title>" in text
    assert f"<title>{'x' * 90} → {'x' * 90}: 9 of 10 (90%)</title>" in text
    assert "→ (no answer): 1 of 10 (10%)</title>" in text
    assert "<b>" not in text
    assert text.count("<g>") == 6
    assert drawing([[10, 0], [0, 10]], ["a", "b"], [10, 10], [0, 1]).count("<g>") == 4


def test_labels_that_were_turned_around_are_the_ones_to_check():
    draw = np.random.default_rng(6)
    labels = draw.integers(0, 3, 2000)
    logits = draw.normal(0, 1, (2000, 3)) + 5 * np.eye(3)[labels]
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    turned = np.arange(0, 2000, 50)
    given = labels.copy()
    given[turned] = (given[turned] + 1) % 3
    texts = [f"text {row}" for row in range(2000)]
    test = findings.TestSet(texts, None, given, list("abc"), keys(texts), {}, "0" * 64)
    rows = test.answered(chances, chances.argmax(1), labels, {})
    found = doubtful(test, rows, chances)
    hits = sum(row["row"] in turned for row in found)
    assert len(found) == 20
    assert hits >= 18  # of 2,000 rows 40 are wrong
    assert all(row["chance"] < row["confidence"] and row["label"] != row["answer"] for row in found)
    left = errors(test, rows, chances, {row["row"] for row in found})
    assert not {row["text"] for row in left} & {row["text"] for row in found}
    assert [row["confidence"] for row in left] == sorted((row["confidence"] for row in left), reverse=True)


def test_an_answer_that_was_not_given_is_no_error_to_read():
    labels, chances = drawn(300, 3, seed=7)
    texts = [f"text {row}" for row in range(300)]
    test = findings.TestSet(texts, None, labels, list("abc"), keys(texts), {}, "0" * 64)
    told = np.where(chances.max(1) < 0.6, NONE, chances.argmax(1))
    found = errors(test, test.answered(chances, told, labels, {}), chances, set())
    assert found
    assert all(row["confidence"] >= 0.6 for row in found)


@pytest.mark.parametrize(
    ("baseline", "told"),
    [
        (None, r"better than the linear baseline, by \d+\.\d to \d+\.\d points"),
        (
            lambda chances: chances,
            r"no difference to the linear baseline is shown \(\+0\.0 points, -\d\.\d to \+\d\.\d, p = 1\)",
        ),
    ],
)
def test_the_verdict_says_what_the_paired_interval_allows(tmp_path, baseline, told):
    text, _ = page(tmp_path, 600, 3, baseline)
    assert re.search(told, text)
    worse, _ = page(tmp_path, 600, 3, lambda chances: np.eye(3)[drawn(600, 3)[0]])
    assert "worse than the linear baseline, by" in worse


@pytest.mark.parametrize(("wins", "verdict"), [(5, "even"), (6, "better")])
def test_the_page_calls_better_what_the_gate_does(wins, verdict):
    labels = np.array([0, 1] * 50)
    rival = labels.copy()
    rival[:wins] ^= 1
    compared = json.loads(json.dumps(asdict(compare(labels, labels, rival, 2))))
    evidence = Evidence(
        {}, Predictions(["a", "b"], keys([str(row) for row in range(100)]), labels, labels, labels, labels, rival, {})
    )
    (gate,) = judge(evidence, Rules(champion="ignore", slices=False))
    kind, points = words._against(compared)
    assert (kind, gate.passed) == (verdict, verdict == "better")
    assert ("p = 0.062" in points) == (verdict == "even")


def test_probes_ask_with_the_second_text_of_each_row():
    labels, chances = drawn(100, 2)
    test = findings.TestSet(["first"] * 100, ["second"] * 100, labels, ["no", "yes"], keys(["x"] * 100), {}, "0" * 64)
    asked = []

    def predict(texts, pairs):
        asked.append((texts, pairs))
        return chances[: len(texts)]

    find(test, chances, chances, predict, SPEED, "cpu")
    assert all(set(pairs) == {"second"} and len(texts) == len(pairs) for texts, pairs in asked)
