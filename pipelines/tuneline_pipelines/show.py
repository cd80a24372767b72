"""What a person sees: live steps, the table at the end, the runs to compare."""

from __future__ import annotations

import shlex
import time
from collections.abc import Collection, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column, Table
from rich.text import Text

if TYPE_CHECKING:
    from tuneline_pipelines.submit import Submitted

SHOWN = {"accuracy": "accuracy", "macro_f1": "macro F1", "baseline_accuracy": "baseline",
         "train_examples_per_second": "texts/s"}  # fmt: skip
PLAIN_SECONDS = 10.0
NARROWEST = 6
"""Characters of a column of texts below which a table is no table any more."""
NO_RUNS = "no runs yet; start one with: tuneline run"


class LiveSteps:
    """A bar a step on a terminal; elsewhere a plain line at the start, at the end, and every ten seconds between."""

    def __init__(self, console: Console) -> None:
        self.console = console
        # The note gives way where the terminal is narrow; the counts stay readable.
        whole, rest = partial(Column, no_wrap=True), Column(ratio=1, no_wrap=True, overflow="ellipsis")
        self.bars = Progress(
            TextColumn("{task.description}", table_column=whole(min_width=9)),
            BarColumn(bar_width=None, table_column=whole(width=16)),
            MofNCompleteColumn(table_column=whole(min_width=9)), TimeElapsedColumn(table_column=whole(min_width=7)),
            TextColumn("{task.fields[note]}", table_column=rest), console=console, disable=not console.is_terminal,
            redirect_stdout=False, redirect_stderr=False, expand=True,
        )  # fmt: skip
        self.tasks: dict[tuple[str, str], TaskID] = {}
        self.told: dict[tuple[str, str], float] = {}

    def __enter__(self) -> LiveSteps:
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def tell(self, step: str, done: int, total: int, note: str) -> None:
        """Show that `done` of `total` are done; total 0 shows the note as a line."""
        key = step, note.partition("|")[0].strip()
        if total == 0:
            self._line(f"{step:9} {note}")
        elif self.console.is_terminal:
            if key not in self.tasks:
                self.tasks[key] = self.bars.add_task(step, total=total, note=note)
            self.bars.update(self.tasks[key], completed=done, note=note)
        elif done >= total or time.monotonic() - self.told.get(key, float("-inf")) >= PLAIN_SECONDS:
            self.told[key] = time.monotonic()
            self._line(f"{step:9} {done}/{total} {note}")

    def _line(self, text: str) -> None:
        self.bars.console.print(text, markup=False, highlight=False, soft_wrap=True)


def show_table(
    console: Console, titles: Sequence[str], rows: Sequence[Sequence[str | Text]], texts: Collection[str],
    padding: int = 1,
) -> None:  # fmt: skip
    """A table, or a field a line where the terminal is too narrow for it: what is no text is never cut or parted.

    Args:
        console: where to.
        titles: of the columns.
        rows: their cells; an empty one has no line of its own.
        texts: titles of the columns whose cells may go on in the next line.
        padding: blanks behind each column.
    """
    cells = [[Text(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
    widths = [max(cell_len(title), *(row[at].cell_len for row in cells), 0) for at, title in enumerate(titles)]
    least = [min(NARROWEST, width) if title in texts else width for title, width in zip(titles, widths, strict=True)]
    if sum(least) + padding * len(titles) <= console.width:
        table = Table(box=None, padding=(0, padding, 0, 0))
        for title, width in zip(titles, least, strict=True):
            table.add_column(title, no_wrap=title not in texts, overflow="fold", min_width=width)
        for row in cells:
            table.add_row(*row)
        console.print(table)
        return
    indent = max(map(cell_len, titles)) + 2
    for number, row in enumerate(cells):
        if number:
            console.print()
        for title, cell in zip(titles, row, strict=True):
            if cell:
                console.print(Text(title.ljust(indent)) + cell, soft_wrap=True)


def show_result(console: Console, result: dict[str, Any]) -> None:
    """The metrics, where the model is, and the next command to type."""
    table = Table(Column("metric", overflow="fold"), Column("value", no_wrap=True))
    ranks = {name: rank for rank, name in enumerate(SHOWN)}
    for name, value in sorted(result["metrics"].items(), key=lambda item: (ranks.get(item[0], len(ranks)), item[0])):
        table.add_row(name.replace("_", " "), f"{value:.4g}")
    console.print(table)
    model = result["model"]
    aliases = ", ".join(model["aliases"]) or "no alias: the gate refused it"
    console.print(f"model     {model['name']} version {model['version']} ({aliases})", markup=False)
    for verdict in result["gate"]:
        met = "met" if verdict["passed"] else "NOT met"
        console.print(f"gate      {met}: {verdict['rule']}: {verdict['evidence']}", markup=False, soft_wrap=True)
    for note in result["data"]["notes"]:
        console.print(f"data      {note}", markup=False, soft_wrap=True)
    console.print(f"report    {result['report']}", markup=False, soft_wrap=True)
    seconds = ", ".join(f"{step.replace('_', ' ')} {value:.0f} s" for step, value in result["seconds"].items())
    console.print(f"seconds   {seconds}", markup=False, soft_wrap=True)
    name = shlex.quote(model["name"])
    at = "@" + model["aliases"][-1] if model["aliases"] else f"/{model['version']}"
    console.print(f"next      tuneline predict {name}{at} FILE    or    tuneline ui", markup=False, soft_wrap=True)


def show_images(console: Console, made: list[dict[str, Any]]) -> None:
    """A row an image."""
    rows: list[list[str]] = []
    for row in made:
        seconds = f"{row['seconds']:.0f}" if row["built"] else "there already"
        rows.append([row["reference"], f"{row['size'] / 1e6:.0f}", f"{row['over_base'] / 1e6:.0f}", seconds])
    show_table(console, ("image", "MB", "MB over base", "seconds"), rows, ("image",))


def show_runs(console: Console, found: list[dict[str, Any]]) -> None:
    """A row a run."""
    if not found:
        others = ", ".join(_experiments())
        told = f"no runs of that name; there are runs of: {others}" if others else NO_RUNS
        console.print(told, markup=False, highlight=False, soft_wrap=True)
        return
    rows: list[list[str]] = []
    for run in found:
        started = datetime.fromtimestamp(run["started"] / 1000).strftime("%m-%d %H:%M")
        values = [f"{run['metrics'][name]:.4g}" if name in run["metrics"] else "" for name in SHOWN]
        model = run["params"].get("model_name", "")
        rows.append([started, run["experiment"], run["run_id"][:8], run["status"].lower(), *values, model])
    titles = ("started", "experiment", "run", "status", *SHOWN.values(), "model")
    show_table(console, titles, rows, ("experiment", "model"))


def _experiments() -> list[str]:
    """Those that have runs: none were found, and a name with a typo is the likelier reason."""
    from tuneline.tracking import recent_runs

    return sorted({run["experiment"] for run in recent_runs(100, None)})


def show_submitted(console: Console, started: Submitted) -> None:
    """What was started, where it is to be seen, and how to follow it."""
    for what in started.reused:
        console.print(f"reused     {what}", markup=False, soft_wrap=True)
    rows = {"run": started.name, "id": started.id, "experiment": started.experiment, "version": started.version}
    for key, value in {**rows, **started.links}.items():
        console.print(f"{key:10} {value}", markup=False, highlight=False, soft_wrap=True)


def show_remote_runs(console: Console, found: list[dict[str, Any]]) -> None:
    """A row a run of a cluster."""
    if not found:
        console.print("no runs there yet; start one with: tuneline submit RECIPE --profile PROFILE", markup=False)
        return
    rows: list[list[str]] = []
    for run in found:
        started = datetime.fromisoformat(run["started"]).astimezone().strftime("%m-%d %H:%M") if run["started"] else ""
        minutes = f"{run['seconds'] / 60:.1f}" if run["seconds"] is not None else ""
        rows.append([started, run["name"], (run["state"] or "").lower(), minutes, run["run_id"]])
    show_table(console, ("started", "run", "state", "minutes", "run id"), rows, ("run",))
