"""tuneline audit: the prepare step alone, in this process and without an MLflow run, and what it found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tuneline.artifacts import PreparedData, read_json
from tuneline.config import Recipe
from tuneline.errors import InputError
from tuneline.prepare.prepare import prepare
from tuneline_pipelines.state import home
from tuneline_pipelines.watch import Tell, heard

FILES = ("audit.json", "audit.html")
COLOURS = {"error": "red", "warning": "yellow", "info": "cyan"}


def audit(recipe: Recipe, out: Path | None, tell: Tell) -> dict[str, Any]:
    """Prepare a recipe's data and tell what was found.

    Args:
        recipe: whose data.
        out: the folder to write; None takes one of the state folder, named as the model.
        tell: called with the step's progress.

    Returns:
        The result, as `tuneline audit --json` prints it; `status` is failed where the data is refused.

    Raises:
        InputError: `out` holds other files, or the data could not be audited at all.
    """
    folder = (out or home() / "audit" / recipe.register_.name).absolute()
    _make_way(folder)
    try:
        with heard(tell):
            manifest = prepare(recipe.data, recipe.model, folder)
    except InputError as error:
        if not (folder / "audit.json").is_file():
            raise
        page = str(folder / "audit.html")
        where = "" if page in str(error) else f"; all findings: {page}"
        return _result(folder) | {"status": "failed", "error": f"{error}{where}"}
    return _result(folder, manifest)


def _make_way(folder: Path) -> None:
    """Take an earlier audit's files out of the way, and leave any other folder alone."""
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "audit.json").is_file():
        raise InputError(f"--out: {folder} holds files that are no audit; name a new folder")
    for name in FILES:
        (folder / name).unlink(missing_ok=True)


def _result(folder: Path, manifest: PreparedData | None = None) -> dict[str, Any]:
    report = read_json(folder / "audit.json")
    return {
        "status": "succeeded",
        "verdict": report["verdict"],
        "findings": report["findings"],
        "rows": report["rows"],
        "rows_read": report["rows_read"],
        "removed": report["removed"],
        "sha256": manifest.sha256 if manifest else {},
        "page": str(folder / "audit.html"),
        "folder": str(folder),
    }


def show(console: Console, result: dict[str, Any]) -> None:
    """A row a finding, and where the page is."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("", "check", "what was found", "what was done"):
        table.add_column(title, no_wrap=title in ("", "check"), overflow="fold")
    for found in result["findings"]:
        colour = COLOURS[found["severity"]]
        cells = (found["check"], found["message"], found["action"])
        table.add_row(f"[{colour}]{found['severity']}[/{colour}]", *map(escape, cells))
    console.print(table)
    rows = ", ".join(f"{name} {count:,}" for name, count in result["rows"].items())
    for name, value in {"verdict": result["verdict"], "rows": rows, "page": result["page"]}.items():
        console.print(f"{name:9} {value}", markup=False, highlight=False, soft_wrap=True)
