"""What examples/ shows is what the code takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import yaml

from tests.conftest import ROOT


def test_a_component_of_ones_own_follows_the_whole_pipeline_and_takes_its_model(tmp_path: Path) -> None:
    out = tmp_path / "mine.yaml"
    words = [sys.executable, str(ROOT / "examples" / "own_component.py"), "my.csv", "must.csv", "-o", str(out)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    compiled = next(yaml.safe_load_all(out.read_text(encoding="utf-8")))
    tasks = compiled["root"]["dag"]["tasks"]
    assert set(tasks) == {"tuneline-finetune", "must-answer"}
    given = tasks["must-answer"]["inputs"]["artifacts"]["model"]["taskOutputArtifact"]
    assert given["producerTask"] == "tuneline-finetune"
    inner = compiled["components"]["comp-tuneline-finetune"]["dag"]
    assert set(inner["tasks"]) == {"prepare", "train", "evaluate", "register"}
    (origin,) = inner["outputs"]["artifacts"][given["outputArtifactKey"]]["artifactSelectors"]
    assert origin["producerSubtask"] == "train"
