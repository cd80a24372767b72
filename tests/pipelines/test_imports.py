"""Who may import whom, and what a command may load before it works."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.medium

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "transformers", "mlflow", "kfp", "sklearn", "datasets", "pandas")


def loaded(module: str) -> set[str]:
    code = f"import {module}, sys; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_import_contracts_hold() -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("module", "allowed"),
    [
        ("tuneline.config", set()),
        ("tuneline.recipe", set()),
        ("tuneline.prepare.prepare", set()),
        ("tuneline.register.register", set()),
        ("tuneline.evaluate.evaluate", set()),
        ("tuneline.serve.batch", set()),
        ("tuneline.serve.server", set()),
        ("tuneline.train.trainjob", set()),
        ("tuneline_pipelines.cli", set()),
        ("tuneline.train.train", {"torch", "transformers"}),
    ],
)
def test_a_module_loads_no_more_than_it_uses(module: str, allowed: set[str]) -> None:
    assert loaded(module) <= allowed
