"""Submissions to the stand-in server, from Python and by the command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.pipelines.kfp_server import KfpServer
from typer.testing import CliRunner, Result

from tuneline.config import Recipe
from tuneline.errors import InputError
from tuneline_pipelines.cli import app
from tuneline_pipelines.remote import Remote
from tuneline_pipelines.resources import Profile, load_profile
from tuneline_pipelines.submit import Submitted, submit

TOKEN = "hunter2-token"


def profile_of(server: KfpServer, folder: Path, **keys: Any) -> Path:
    path = folder / "cluster.yaml"
    path.write_text(yaml.safe_dump({"server": {"endpoint": server.url, **keys}}))
    return path


class Session:
    """Submissions to a server with a profile; waiting is recorded, not done."""

    def __init__(self, server: KfpServer, folder: Path, **keys: Any) -> None:
        self.profile: Profile = load_profile(profile_of(server, folder, **keys))
        assert self.profile.server
        self.waited: list[float] = []
        self.notes: list[str] = []
        self.remote = Remote(self.profile.server, self.notes.append, self.waited.append)

    def submit(self, recipe: Recipe, schedule: str | None = None) -> Submitted:
        return submit(recipe, self.profile, self.remote, schedule)[0]


class Command:
    """The command in this process, with a profile in its environment and no waits."""

    def __init__(self, profile: Path) -> None:
        self.env = {"TUNELINE_PROFILE": str(profile), "COLUMNS": "200"}

    def __call__(self, *words: str, status: int = 0) -> Result:
        done = CliRunner().invoke(app, list(words), env=self.env)
        assert done.exit_code == status, (done.output, done.exception)
        assert "Traceback" not in done.output
        return done


def body_of(server: KfpServer, path: str) -> Any:
    (body,) = [call.body for call in server.calls if call.method == "POST" and call.path == f"/apis/v2beta1/{path}"]
    return body


def refusal(session: Session, recipe: Recipe) -> str:
    with pytest.raises(InputError) as caught:
        session.submit(recipe)
    told = str(caught.value)
    assert "\n" not in told
    assert TOKEN not in told
    return told
