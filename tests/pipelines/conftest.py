"""A stand-in for Kubeflow Pipelines, and who submits to it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.pipelines.kfp_server import KfpServer
from tests.pipelines.submitting import Command, Session, profile_of

from tuneline.config import Recipe
from tuneline.recipe import load_recipe
from tuneline_pipelines import compile, follow, wire
from tuneline_pipelines.recipes import shipped
from tuneline_pipelines.resources import Profile

COMPILED: dict[tuple[bool, str], tuple[bytes, list[str]]] = {}


@pytest.fixture
def compile_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal pipelines are compiled once for all these tests; where the server is changes nothing in them."""

    def write(out: Path, defaults: dict[str, Any], pinned: bool, profile: Profile, nodes: int) -> list[str]:
        assert defaults == {}
        key = pinned, nodes, profile.model_dump_json(exclude={"server"})
        if key not in COMPILED:
            notes = compile.write(out, defaults, pinned, profile, nodes)
            COMPILED[key] = out.read_bytes(), notes
        out.write_bytes(COMPILED[key][0])
        return list(COMPILED[key][1])

    monkeypatch.setattr("tuneline_pipelines.submit.write", write)
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def server(compile_once: None) -> Iterator[KfpServer]:
    """A stand-in for Kubeflow Pipelines."""
    running = KfpServer()
    yield running
    running.close()


@pytest.fixture
def recipe() -> Recipe:
    return load_recipe(shipped()["quickstart"], ["register.name=topics", "train.epochs=2"])


@pytest.fixture
def session(server: KfpServer, tmp_path: Path) -> Session:
    return Session(server, tmp_path)


@pytest.fixture
def tuneline(server: KfpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.setattr(follow, "EVERY", 0.01)
    monkeypatch.setattr(wire, "PAUSES", (0.01, 0.02, 0.03))
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(signal, "signal", lambda *_: before)  # of the process that runs the tests
    return Command(profile_of(server, tmp_path))
