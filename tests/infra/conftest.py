"""The manifests' tests: where the tools are that conflict with the project's own environment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.infra.render import missing


@pytest.fixture(scope="session")
def checks() -> Path:
    """The bin folder of the checks' own environment; a test that needs it skips without it, or fails in CI."""
    folder = Path(os.environ.get("TUNELINE_CHECKS", ROOT / ".venv-checks")) / "bin"
    if not (folder / "checkov").exists():
        missing(f"no checkov in {folder}: `make checks` installs it")
    return folder
