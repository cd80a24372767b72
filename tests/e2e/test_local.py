"""The local stack's files: secrets that are made and not defaulted, and a compose file that asks for them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from infra.local.stack import StackError, write_env

pytestmark = pytest.mark.medium

FOLDER = Path(__file__).parents[2] / "infra" / "local"
COMPOSE = FOLDER / "compose.yaml"


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))


@pytest.fixture
def secrets(tmp_path: Path) -> dict[str, str]:
    write_env(tmp_path / ".env")
    return dict(line.split("=", 1) for line in (tmp_path / ".env").read_text().splitlines())


def test_secrets_are_new_each_time_long_and_for_their_owner_only(tmp_path: Path, secrets: dict[str, str]) -> None:
    write_env(tmp_path / "other")
    others = (tmp_path / "other").read_text()
    assert len(set(secrets.values())) == len(secrets)
    assert all(len(secret) >= 32 and secret not in others for secret in secrets.values())
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600


def test_secrets_that_data_was_made_with_are_not_overwritten(tmp_path: Path, secrets: dict[str, str]) -> None:
    with pytest.raises(StackError, match="is there already"):
        write_env(tmp_path / ".env")
    assert dict(line.split("=", 1) for line in (tmp_path / ".env").read_text().splitlines()) == secrets


def test_compose_asks_for_every_secret_and_has_a_default_for_none(secrets: dict[str, str]) -> None:
    text = COMPOSE.read_text(encoding="utf-8")
    asked = set(re.findall(r"\$\{(\w+):\?", text))
    assert asked == set(secrets)
    assert set(re.findall(r"\$\{(\w+):-", text)) == {"MLFLOW_PORT", "TRACKING_IMAGE"}


def test_compose_gives_secrets_by_the_environment_only(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        for name, value in service["environment"].items():
            if re.search("PASSWORD|SECRET|ACCESS_KEY", name):
                assert re.fullmatch(r"\$\{\w+:\?run stack\.py env\}", value), name
        assert "${" not in str(service.get("command"))


def test_compose_publishes_mlflow_alone_and_on_this_machine_only(compose: dict[str, Any]) -> None:
    ports = {name: service["ports"] for name, service in compose["services"].items() if "ports" in service}
    assert ports == {"mlflow": ["127.0.0.1:${MLFLOW_PORT:-5000}:5000"]}
    assert compose["networks"]["inside"] == {"internal": True}
    assert {name for name, service in compose["services"].items() if "outside" in service["networks"]} == {"mlflow"}


def test_our_containers_write_nowhere_and_may_nothing(compose: dict[str, Any]) -> None:
    for name in ("mlflow", "bucket"):
        service = compose["services"][name]
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])


def test_the_engine_itself_takes_the_file(tmp_path: Path, secrets: dict[str, str]) -> None:
    del secrets
    docker = shutil.which("docker")
    if not docker or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("no docker compose here")
    command = [docker, "compose", "--env-file", str(tmp_path / ".env"), "-f", str(COMPOSE), "config", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        ([], 2, "required: verb"),
        (["start"], 2, "invalid choice"),
        (["run", "--", "nothing-such"], 1, "no such command"),
    ],
)
def test_words_that_cannot_be_followed_are_told(arguments: list[str], status: int, told: str) -> None:
    command = [sys.executable, FOLDER / "stack.py", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == status
    assert told in done.stderr
    assert "Traceback" not in done.stderr
