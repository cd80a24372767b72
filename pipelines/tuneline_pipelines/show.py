"""What a person sees: live steps, the table at the end, the runs to compare."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

SHOWN = ("accuracy", "macro_f1", "baseline_accuracy", "train_examples_per_second")


class LiveSteps:
    """A bar a step on a terminal; a plain line now and then elsewhere."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bars = Progress(
            TextColumn("{task.description:9}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"), console=console, disable=not console.is_terminal,
        )  # fmt: skip
        self.tasks: dict[tuple[str, str], TaskID] = {}
        self.quarters: dict[tuple[str, str], int] = {}

    def __enter__(self) -> LiveSteps:
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def tell(self, step: str, done: int, total: int, note: str) -> None:
        """Show that `done` of `total` are done; total 0 shows the note as a line."""
        if total == 0:
            self.bars.console.print(f"{step:9} {note}", markup=False, highlight=False)
            return
        unit = note.partition("|")[0].strip()
        if self.console.is_terminal:
            if (step, unit) not in self.tasks:
                self.tasks[step, unit] = self.bars.add_task(step, total=total, note=note)
            task = self.tasks[step, unit]
            self.bars.update(task, completed=done, note=note)
        elif self.quarters.get((step, unit)) != 4 * done // total:
            self.quarters[step, unit] = 4 * done // total
            self.console.print(f"{step:9} {done}/{total} {note}", markup=False, highlight=False, soft_wrap=True)


def show_result(console: Console, result: dict[str, Any]) -> None:
    """The metrics, where the model is, and the next command to type."""
    table = Table("metric", "value")
    for name, value in result["metrics"].items():
        table.add_row(name.replace("_", " "), f"{value:.4g}")
    console.print(table)
    model = result["model"]
    aliases = ", ".join(model["aliases"]) or "no alias: the gate refused it"
    console.print(f"model     {model['name']} version {model['version']} ({aliases})", markup=False)
    for verdict in result["gate"]:
        console.print(
            f"gate      {'met' if verdict['passed'] else 'NOT met'}: {verdict['rule']}: {verdict['evidence']}"
        )
    console.print(f"report    {result['report']}", markup=False, soft_wrap=True)
    seconds = ", ".join(f"{step} {value:.0f} s" for step, value in result["seconds"].items())
    console.print(f"seconds   {seconds}", markup=False)
    at = "@" + model["aliases"][0] if model["aliases"] else f"/{model['version']}"
    console.print(f"next      tuneline predict {model['name']}{at} FILE    or    tuneline ui", markup=False)


def show_runs(console: Console, found: list[dict[str, Any]]) -> None:
    """A row a run."""
    table = Table(
        "started", "experiment", "run", "status", *(name.replace("_", " ") for name in SHOWN), "model", "rate"
    )
    for run in found:
        values = [f"{run['metrics'][name]:.4g}" if name in run["metrics"] else "" for name in SHOWN]
        started = datetime.fromtimestamp(run["started"] / 1000).strftime("%Y-%m-%d %H:%M")
        params = run["params"]
        table.add_row(
            started, run["experiment"], run["run_id"][:8], run["status"], *values,
            params.get("model_name", ""), params.get("train_learning_rate", ""),
        )  # fmt: skip
    console.print(table if found else "no runs yet; start one with: tuneline run")
