"""The workflow that runs .ci/run on a hosting service."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT

WORKFLOWS = ROOT / ".github" / "workflows"


@pytest.mark.slow
def test_zizmor_finds_nothing_that_lets_a_stranger_into_a_workflow(checks: Path) -> None:
    found = subprocess.run(
        [checks / "zizmor", "--offline", "--persona", "pedantic", WORKFLOWS], capture_output=True, text=True
    )
    assert found.returncode == 0, found.stdout + found.stderr


def test_the_workflow_runs_what_everybody_runs() -> None:
    (job,) = yaml.safe_load((WORKFLOWS / "ci.yml").read_text())["jobs"].values()
    assert job["steps"][-1]["run"] == ".ci/run"
    assert job["env"]["TUNELINE_REQUIRE_DATA"] == "0"
