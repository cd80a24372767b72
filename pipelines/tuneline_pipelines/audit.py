"""tuneline audit: the prepare step alone, in this process and without an MLflow run, and what it found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from tuneline.artifacts import SPLITS, PreparedData, read_json
from tuneline.config import DataConfig, Recipe
from tuneline.errors import InputError
from tuneline.prepare import corrections, report
from tuneline.prepare.audit import RefusedError
from tuneline.prepare.prepare import prepare
from tuneline.tables.files import expanded
from tuneline_pipelines.outputs import check_writable
from tuneline_pipelines.show import show_table
from tuneline_pipelines.state import home
from tuneline_pipelines.watch import Tell, heard

OWN = {*report.FILES, "manifest.json", "tokenizer", *(f"{split}.arrow" for split in SPLITS)}
"""What an audit writes, and the next one replaces."""
LIST = "label_errors.csv"
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
        InputError: `out` cannot be written or holds what no audit wrote, or the data could not be audited at all;
            `out` is as it was.
    """
    folder = (out or home() / "audit" / recipe.register_.name).absolute()
    check_writable("--out", folder)
    _check_folder(folder, recipe.data)
    try:
        with heard(tell):
            manifest = prepare(recipe.data, recipe.model, folder)
    except RefusedError as error:
        return _result(folder) | {"status": "failed", "error": str(error)}
    return _result(folder, manifest)


def _check_folder(folder: Path, data: DataConfig) -> None:
    """See that the folder holds nothing but an earlier audit, which prepare replaces once it has a new one.

    Raises:
        InputError: there are other files, or corrections that were typed into the list, or the data.
    """
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if there and "audit.json" not in there:
        raise InputError(f"--out: {folder} holds files that are no audit; name a new folder")
    if others := sorted(there - OWN):
        raise InputError(f"--out: {folder} holds {others[0]}, which is no audit's; move it away, or name a new folder")
    for key in (*SPLITS, "corrections"):
        uri = getattr(data, key)
        if uri and "://" not in uri and expanded(uri).resolve().is_relative_to(folder.resolve()):
            raise InputError(
                f"data.{key}: {uri} lies in the folder that the audit writes anew; move it out of {folder}"
            )
    if LIST in there and _is_filled_in(folder / LIST):
        raise InputError(
            f"--out: {folder / LIST} holds corrections, which the next list would replace; move it out of the folder "
            f"and name it by data.corrections, or give another --out"
        )


def _is_filled_in(listed: Path) -> bool:
    """Whether somebody wrote into new_label; what cannot be read any more was changed too."""
    try:
        return bool(corrections.load(str(listed)).labels)
    except InputError:
        return True


def _result(folder: Path, manifest: PreparedData | None = None) -> dict[str, Any]:
    told = read_json(folder / "audit.json")
    return {
        "status": "succeeded",
        "verdict": told["verdict"],
        "findings": told["findings"],
        "rows": told["rows"],
        "rows_read": told["rows_read"],
        "removed": told["removed"],
        "sha256": manifest.sha256 if manifest else {},
        "page": str(folder / "audit.html"),
        "folder": str(folder),
    }


def show(console: Console, result: dict[str, Any]) -> None:
    """A row a finding, and where the page is."""
    table = [
        [Text(found["severity"], COLOURS[found["severity"]]), found["check"], found["message"], found["action"]]
        for found in result["findings"]
    ]
    texts = ("what was found", "what was done")
    show_table(console, ("", "check", *texts), table, texts, padding=2)
    rows = ", ".join(f"{name} {count:,}" for name, count in result["rows"].items())
    for name, value in {"verdict": result["verdict"], "rows": rows, "page": result["page"]}.items():
        console.print(f"{name:9} {value}", markup=False, highlight=False, soft_wrap=True)
