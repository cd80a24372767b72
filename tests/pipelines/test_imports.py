"""Who may import whom, and what a command may load before it works."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.medium

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "transformers", "mlflow", "kfp", "sklearn", "datasets", "pandas")


LIGHT = (
    "tuneline.config", "tuneline.recipe", "tuneline.prepare.prepare", "tuneline.register.register",
    "tuneline.evaluate.evaluate", "tuneline.serve.batch", "tuneline.serve.server", "tuneline.train.trainjob",
    "tuneline_pipelines.cli",
)  # fmt: skip


def loaded(*modules: str) -> set[str]:
    """What of HEAVY is there after the import of these modules."""
    code = f"import {', '.join(modules)}, sys; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_import_contracts_hold() -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_what_reads_and_checks_loads_nothing_heavy() -> None:
    assert loaded(*LIGHT) == set()


def test_training_loads_no_more_than_it_uses() -> None:
    assert loaded("tuneline.train.train") == {"torch", "transformers"}
