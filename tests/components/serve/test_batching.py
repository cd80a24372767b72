"""Batching: the classifier's own answers whatever is asked beside them, turns for all, and a bounded queue."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import CancelledError, wait
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.components.serve.conftest import lively
from tests.components.serve.test_model import TEXTS
from tuneline.artifacts import read_json, write_json
from tuneline.inputs import Inputs
from tuneline.serve.batching import Batcher, FullError, _Job, fill
from tuneline.serve.bodies import Question
from tuneline.serve.model import Classifier

ASKED = [text for text in TEXTS if text]


class Passes:
    """Notes the rows and tokens of each pass, and the texts that wait."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.tokens: list[int] = []
        self.waiting = 0

    def passed(self, texts: int, tokens: int, seconds: float) -> None:
        self.rows.append(texts)
        self.tokens.append(tokens)

    def waits(self, change: int) -> None:
        self.waiting += change


class Held(Classifier):
    """A classifier whose passes wait until they are let through."""

    gate: threading.Event
    entered: threading.Event

    def predict_proba_inputs(self, *arguments: Any) -> np.ndarray:
        self.entered.set()
        assert self.gate.wait(30)
        return super().predict_proba_inputs(*arguments)


@pytest.fixture(scope="module", params=["head", "windows"])
def folder(request, trained, tmp_path_factory):
    """A model that cuts long texts, and one that reads them in windows."""
    made = lively(trained, tmp_path_factory.mktemp(request.param) / "model", 0)
    write_json(made / "tuneline.json", read_json(made / "tuneline.json") | {"long_texts": request.param})
    return made


@pytest.fixture
def held(folder):
    """A classifier whose passes wait for `gate`."""
    made = Held(folder)
    made.gate, made.entered = threading.Event(), threading.Event()
    return made


@pytest.fixture
def batcher(held):
    """A batcher on it, of small passes and a short queue."""
    made = Batcher(held, 64, 70, Passes())
    yield made
    held.gate.set()
    made.close()
    assert made.join(30)


def test_every_request_gets_what_the_classifier_answers_to_it_alone(folder, held, batcher):
    requests = [ASKED[:1], ASKED[1:30], ASKED[30:32], ASKED[32:33], ASKED[5:20]]
    futures = [batcher.submit(Question(texts)) for texts in requests]
    held.gate.set()
    alone = Classifier(folder)
    for texts, future in zip(requests, futures, strict=True):
        assert future.result(30) == pytest.approx(alone.predict_proba(texts), abs=1e-5)
    assert batcher.watcher.waiting == 0


def test_what_waits_is_answered_together_and_no_pass_is_larger_than_was_said(held, batcher):
    first = batcher.submit(Question(ASKED[:1]))
    assert held.entered.wait(30)  # it is in a pass by itself, and the others wait
    futures = [batcher.submit(Question([text])) for text in ASKED[1:]]
    held.gate.set()
    wait([first, *futures], 30)
    passes = batcher.watcher
    assert passes.rows[0] == len(held.inputs_of(ASKED[:1]).rows)
    assert max(passes.tokens) <= 64
    assert len(passes.rows) < len(futures) / 2


def test_a_pair_is_answered_as_the_classifier_answers_it(trained, tmp_path):
    folder = lively(trained, tmp_path / "model", 0)
    write_json(folder / "tuneline.json", read_json(folder / "tuneline.json") | {"pairs": True})
    classifier = Classifier(folder)
    batcher = Batcher(classifier, 64, 1000, Passes())
    halves = ASKED[:20], ASKED[20:40]
    futures = [batcher.submit(Question([one], [other])) for one, other in zip(*halves, strict=True)]
    found = np.concatenate([future.result(30) for future in futures])
    assert found == pytest.approx(classifier.predict_proba(*halves), abs=1e-5)
    batcher.close()


def test_beyond_the_queue_a_request_is_told_when_to_come_again(held, batcher):
    futures = [batcher.submit(Question(ASKED[:30])) for _ in range(2)]
    with pytest.raises(FullError, match=r"too many texts are waiting; try again in \d+ s"):
        batcher.submit(Question(ASKED[:30]))
    held.gate.set()
    wait(futures, 30)
    assert len(batcher.submit(Question(ASKED[:30])).result(30)) == 30


def test_a_request_larger_than_the_queue_is_taken_when_nothing_waits(held, batcher):
    future = batcher.submit(Question(ASKED * 3))
    held.gate.set()
    assert len(future.result(30)) == 3 * len(ASKED)


def test_a_request_that_was_given_up_costs_nothing_and_frees_its_place(held, batcher):
    first = batcher.submit(Question(ASKED[:1]))
    assert held.entered.wait(30)
    given_up = batcher.submit(Question(ASKED[:50]))
    assert given_up.cancel()
    other = batcher.submit(Question(ASKED[:2]))
    held.gate.set()
    wait([first, other], 30)
    assert sum(batcher.watcher.rows) == sum(len(held.inputs_of(texts).rows) for texts in (ASKED[:1], ASKED[:2]))
    assert batcher.watcher.waiting == 0
    with pytest.raises(CancelledError):
        given_up.result()


def test_a_failing_text_fails_its_own_request_only(held, batcher):
    first = batcher.submit(Question(ASKED[:1]))
    assert held.entered.wait(30)
    bad, good = batcher.submit(Question(["\ud800"])), batcher.submit(Question(ASKED[:2]))
    held.gate.set()
    with pytest.raises(TypeError):
        bad.result(30)
    assert len(good.result(30)) == 2
    assert len(first.result(30)) == 1


def test_a_pass_that_fails_is_told_and_the_next_one_is_answered(held, batcher, monkeypatch):
    def fail(*_: Any) -> None:
        raise MemoryError

    held.gate.set()
    with monkeypatch.context() as patch:
        patch.setattr(held, "predict_proba_inputs", fail)
        with pytest.raises(MemoryError):
            batcher.submit(Question(ASKED)).result(30)
    assert len(batcher.submit(Question(ASKED)).result(30)) == len(ASKED)
    assert batcher.watcher.waiting == 0


def test_what_was_taken_is_answered_after_the_end_and_nothing_more_is_taken(held, batcher):
    futures = [batcher.submit(Question(ASKED[:30])), batcher.submit(Question(ASKED[:30]))]
    batcher.close()
    with pytest.raises(RuntimeError, match="closed"):
        batcher.submit(Question(ASKED[:1]))
    held.gate.set()
    assert [len(future.result(30)) for future in futures] == [30, 30]
    assert batcher.join(30)


@given(st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=12), max_size=10), st.integers(1, 64))
def test_passes_hold_every_row_once_and_jobs_take_turns(sizes, most):
    jobs = [_Job(Question([])) for _ in sizes]
    for job, lengths in zip(jobs, sizes, strict=True):
        job.start(Inputs([[0] * length for length in lengths]), 1)
    going, passes = deque(jobs), []
    while going:
        passes.append([(jobs.index(job), place) for job, place in fill(going, most)])
    for rows in passes:
        assert len(rows) == 1 or sum(sizes[job][place] for job, place in rows) <= most
    order = [row for rows in passes for row in rows]
    assert order == sorted(order, key=lambda row: (row[1], row[0]))
    assert len(order) == sum(map(len, sizes))


@given(st.lists(st.integers(1, 4), min_size=1, max_size=6), st.booleans(), st.booleans())
def test_inputs_fall_into_parts_that_hold_their_own_rows(counts, windowed, pairs):
    texts = sum(counts)
    windows = [1 + number % 3 for number in range(texts)] if windowed else None
    rows = [[number] for number in range(sum(windows) if windows else texts)]
    inputs = Inputs(rows, [*range(len(rows))] if pairs else None, windows)
    parts = inputs.parts(counts)
    assert [row for part in parts for row in part.rows] == rows
    assert [len(part.windows or part.rows) for part in parts] == counts
    for part in parts:
        assert part.windows is None or sum(part.windows) == len(part.rows)
        assert part.pair_at == ([row[0] for row in part.rows] if pairs else None)
