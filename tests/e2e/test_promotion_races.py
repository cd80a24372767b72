"""Many processes that promote and register at once, on PostgreSQL over HTTP and directly on SQLite: one wins."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from infra.local.stack import Stack

from tests.conftest import ROOT
from tests.e2e.faults import Killer

pytestmark = pytest.mark.slow
RACERS = 32


@dataclass
class Registry:
    """A registry, and what a client of it needs in its environment."""

    environment: dict[str, str]
    folder: Path

    @property
    def store(self) -> Any:
        from tuneline.tracking import client

        return client()

    def race(self, commands: list[list[str]], **more: str) -> list[dict[str, Any]]:
        """Run commands at once, each in its own process: status, out and told of each, in order."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW", "TUNELINE"))}
        own = {"TUNELINE_HOME": str(self.folder / "home"), "OMP_NUM_THREADS": "1", "COLUMNS": "400"}
        done = subprocess.run(
            [sys.executable, "-m", "tests.e2e.racers"], input=json.dumps(commands), cwd=ROOT, capture_output=True,
            env=kept | own | self.environment | more, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout)

    def history(self, name: str) -> dict[str, Any]:
        (done,) = self.race([["history", name, "--json"]])
        assert done["status"] == 0, done["told"]
        return json.loads(done["out"])

    def versions(self, name: str, count: int) -> None:
        """Register as many versions that the gate has passed; nothing here opens their files."""
        self.store.create_registered_model(name)
        run = self.store.create_run(self.store.create_experiment(name))
        for _ in range(count):
            self.store.create_model_version(
                name, f"{run.info.artifact_uri}/model", run.info.run_id, tags={"tuneline.gate": "passed"}
            )


@pytest.fixture(params=["postgresql", "sqlite"])
def registry(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    if request.param == "postgresql":
        environment = request.getfixturevalue("servers").environment
    else:
        environment = {
            "MLFLOW_TRACKING_URI": f"sqlite:///{shutil.copy(request.getfixturevalue('empty_store'), tmp_path)}"
        }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return Registry(environment, tmp_path)


def winners(done: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What those printed that moved the champion; the others ended in a conflict, told in one clear line."""
    for racer in done:
        if racer["status"] != 0:
            assert racer["status"] == 3, racer
            (line,) = racer["told"].splitlines()
            assert line.startswith("error: desk: the champion is version "), line
            assert "nothing was moved; see `tuneline history desk`" in line
            assert json.loads(racer["out"])["error"] == line.removeprefix("error: ")
    return [json.loads(racer["out"]) for racer in done if racer["status"] == 0]


def test_of_racing_promotions_one_replaces_each_champion_and_history_tells_them_all(registry: Registry) -> None:
    registry.versions("desk", RACERS + 9)
    versions = [str(number) for number in range(1, RACERS + 2)]
    moves = winners(registry.race([["promote", f"desk/{n}", "--expect", "none", "--json"] for n in versions[1:]]))
    assert len(moves) == 1

    champion = moves[0]["champion"]
    told = ["--expect", champion, "--reason", "faster", "--json"]
    moves += winners(registry.race([["promote", f"desk/{n}", *told] for n in versions if n != champion]))
    assert len(moves) == 2
    assert moves[1]["from"] == champion

    unsaid = [["promote", f"desk/{n}", "--json"] for n in range(RACERS + 2, RACERS + 10)]  # whoever is champion then
    free = winners(registry.race(unsaid))
    assert free
    moves += free

    found = registry.history("desk")
    assert {move["to"]: move["from"] for move in found["moves"]} == {move["champion"]: move["from"] for move in moves}
    assert len({move["from"] for move in found["moves"]}) == len(found["moves"])  # each champion was replaced once
    ends = [None, *(move["to"] for move in found["moves"])]
    assert [move["from"] for move in found["moves"]] == ends[:-1]
    assert found["champion"] == ends[-1]
    assert str(registry.store.get_model_version_by_alias("desk", "champion").version) == ends[-1]
    assert [move["at"] for move in found["moves"]] == sorted(move["at"] for move in found["moves"])
    assert found["moves"][1]["reason"] == "faster"
    numbers = sorted(move["number"] for move in [*found["moves"], *found["conflicts"]])
    assert numbers == sorted(set(numbers))
    assert (found["outside"], found["missing"]) == (None, [])


def test_a_rollback_and_promotions_that_race_are_one_move(registry: Registry) -> None:
    registry.versions("desk-back", 10)
    for version in ("1", "2"):
        (done,) = registry.race([["promote", f"desk-back/{version}", "--json"]])
        assert done["status"] == 0, done["told"]
    commands = [["rollback", "desk-back", "--expect", "2", "--json"] for _ in range(4)]
    commands += [["promote", f"desk-back/{number}", "--expect", "2", "--json"] for number in range(3, 7)]
    done = registry.race(commands)
    assert sorted(racer["status"] for racer in done) == [0] + [3] * 7
    assert len(registry.history("desk-back")["moves"]) == 3


def test_forty_retries_of_a_registration_of_which_most_are_killed_before_the_answer_are_one_version(
    servers: Stack, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in servers.environment.items():
        monkeypatch.setenv(name, value)
    registry = Registry(servers.environment, tmp_path)
    folder = model_folder(tiny_checkpoint, tmp_path / "model")
    run = registry.store.create_run(registry.store.create_experiment("often"))
    killer = Killer(spare=5)
    with killer.serving():
        killer.in_front_of(servers.mlflow_url)
        done = []
        for _ in range(2):
            commands = [["register", "often", run.info.run_id, str(folder)]] * 20
            done += registry.race(commands, MLFLOW_TRACKING_URI=killer.url)
    killed = [racer for racer in done if racer["status"] == -9]
    assert len(killed) == killer.killed
    assert len(killed) >= 10
    assert {racer["status"] for racer in done} == {0, -9}, [racer["told"] for racer in done if racer["status"] > 0][:1]
    (version,) = registry.store.search_model_versions("name = 'often'")
    assert {racer["out"].strip() for racer in done if racer["status"] == 0} == {str(version.version)}


def model_folder(checkpoint: Path, folder: Path) -> Path:
    """A model as train leaves it, of random weights."""
    from transformers import AutoModelForSequenceClassification

    from tuneline.artifacts import Decision

    network = AutoModelForSequenceClassification.from_pretrained(checkpoint, num_labels=2)
    network.save_pretrained(folder)
    shutil.copy(checkpoint / "tokenizer.json", folder)
    Decision(["neg", "pos"], 32, "head", "tiny", "0" * 64).save(folder)
    return folder
