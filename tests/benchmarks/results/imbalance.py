"""The page's part about unequal classes: what `tuneline imbalance` finds where one text in fifty is spam."""

from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.choosing import rare_spam
from tests.benchmarks.results.job import Line
from tests.benchmarks.results.plan import TREATMENTS
from tests.benchmarks.results.worth import points, spread

NAMES = {
    "none": "plain cross-entropy", "class_weights": "class weights", "focal": "focal loss",
    "balanced_sampling": "balanced sampling", "logit_adjustment": "logit adjustment",
    "thresholds": "plain, tuned thresholds",
}  # fmt: skip

KEPT = ("held_out_rows", "rows_of_rarest", "folds", "seeds", "treatments", "recommended", "sentence")
"""Of what the command says: not where its page lay."""


def measure() -> Line | str:
    """The line to keep, or why there is none.

    Raises:
        KeyboardInterrupt: stopped; nothing is kept.
    """
    started, asked = time.monotonic(), TREATMENTS
    try:
        with tempfile.TemporaryDirectory(prefix="results-") as folder:
            result = rare_spam(asked.texts, asked.folds, asked.seeds, Path(folder))
    except subprocess.CalledProcessError as error:  # the command has said how
        return f"{asked.command}: status {error.returncode}"
    part, mode, command = asked.key
    return {"part": part, "scenario": asked.scenario, "mode": mode, "seed": 0, "command": command,
            "wall_seconds": time.monotonic() - started, "result": {key: result[key] for key in KEPT}}  # fmt: skip


def section(found: Line | None) -> str:
    """The part, in Markdown; nothing where nothing was measured."""
    if not found:
        return ""
    result = found["result"]
    rows = result["rows_of_rarest"]
    lines = [
        "## Is it worth treating unequal classes?", "",
        f"SMS Spam cut to {TREATMENTS.texts:,} texts, one in fifty of them spam. What is left when the test split is "
        f"set aside ({result['held_out_rows']:,} texts, {rows['held_out']} of them spam) is held out once each in "
        f"{result['folds']} folds, and answered by models of {result['seeds']} seeds. Average precision and recall are "
        "of spam; 95% intervals are over texts and seeds, and those of differences are for all treatments at once.", "",
        "| | average precision | over plain cross-entropy, points | macro F1 | recall | over plain, points | seconds |",
        "|---|---|---|---|---|---|---|", *map(_line, result["treatments"]), "", f"**{result['sentence']}**", "",
        f"```\n{TREATMENTS.command}\n```",
    ]  # fmt: skip
    return "\n".join(lines)


def _line(row: dict[str, Any]) -> str:
    over = {metric: points(row["difference"][metric]) for metric in ("average_precision", "recall")}
    if row["treatment"] == "none":
        over = dict.fromkeys(over, "")
    elif row["treatment"] == "thresholds":
        over["average_precision"] = "the same ranking"
    precision, f1, recall = (spread(row[metric]) for metric in ("average_precision", "macro_f1", "recall"))
    cells = [NAMES[row["treatment"]], precision, over["average_precision"], f1, recall, over["recall"],
             f"{row['seconds']:.0f}"]  # fmt: skip
    return f"| {' | '.join(cells)} |"
