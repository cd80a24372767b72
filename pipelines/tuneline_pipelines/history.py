"""tuneline history: who was champion, since when, by whom and why."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from tuneline import ledger, registry
from tuneline.tracking import client
from tuneline_pipelines.show import show_table
from tuneline_pipelines.state import open_state


def history(name: str) -> dict[str, Any]:
    """The champion and its moves, the oldest first.

    A move that its maker did not finish is finished, where this user may.

    Returns:
        model; champion, the version that the alias names; moves, those that count; conflicts, those that lost a race;
        outside, what the alias and the ledger say where somebody moved the alias without tuneline, else None; missing,
        the numbers of entries that somebody deleted.

    Raises:
        InputError: no such model.
    """
    from mlflow.exceptions import MlflowException

    open_state()
    api = client()
    registry.find_model(name)
    try:
        known, at = ledger.settle(api, name)
    except MlflowException as error:
        if error.error_code != "PERMISSION_DENIED":
            raise
        known, at = ledger.look(api, name)
    return {
        "model": name,
        "champion": at,
        "moves": [move.summary() for move in known.moves],
        "conflicts": [move.summary() for move in known.conflicts],
        "outside": None if known.agrees(at) or known.lags(at) else {"alias": at, "recorded": known.champion},
        "missing": known.missing,
    }


def show(console: Console, found: dict[str, Any]) -> None:
    """A row a move, and what is odd."""
    name, champion = found["model"], found["champion"]
    _line(console, f"{name}: the champion is {f'version {champion}' if champion else 'nobody'}")
    if found["moves"]:
        rows: list[list[str]] = []
        for move in found["moves"]:
            what = move["kind"] + (" (override)" if move["override"] else "")
            when = move["at"][:19].replace("T", " ")
            ends = (move["from"] or "none", move["to"] or "none")
            rows.append([str(move["number"]), when, *ends, what, move["who"], move["reason"]])
        show_table(console, ("", "when (UTC)", "from", "to", "what", "by", "why"), rows, ("by", "why"))
    if lost := len(found["conflicts"]):
        _line(console, f"{lost} more came too late and moved nothing (--json shows them)")
    if odd := found["outside"]:
        recorded, at = odd["recorded"] or "none", odd["alias"] or "none"
        _line(
            console,
            f"warning: the alias names {at}, the last recorded move {recorded}: it was moved outside of tuneline",
        )
    if found["missing"]:
        _line(console, f"warning: entries were deleted from the history: {', '.join(map(str, found['missing']))}")


def _line(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
