"""Failures that pass: a request is sent again, and whatever happens to it, there is one run."""

from __future__ import annotations

import json

import pytest
from tests.pipelines.kfp_server import Fault, KfpServer
from tests.pipelines.submitting import Session, body_of

from tuneline.config import Recipe
from tuneline_pipelines import wire
from tuneline_pipelines.wire import UnreachableError


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
