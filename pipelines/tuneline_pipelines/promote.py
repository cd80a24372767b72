"""tuneline promote and rollback: the champion moves, or a conflict is told; then the hooks run."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console

from tuneline import lineage, promotion, registry
from tuneline.errors import InputError
from tuneline.tracking import client
from tuneline.trouble import told_of
from tuneline_pipelines import hooks, kserve
from tuneline_pipelines.state import open_state


def promote(reference: str, expect: str | None, reason: str, override: bool, to: str) -> dict[str, Any]:
    """Make a version champion of its model or, copied there, of another one.

    Args:
        reference: MODEL/VERSION or MODEL@alias.
        expect: the champion that it is to replace; None takes the one that is there.
        reason: why.
        override: promote it although the gate refused it.
        to: the registered model to copy it to; empty for its own.

    Raises:
        InputError: no such version, the gate refused it, or its files are not those that were registered.
        ConflictError: another version is champion than expected.
    """
    promotion.check_reason(reason)  # before a copy is made
    open_state()
    version = registry.find(reference)
    promotion.check_gate(version, override)
    _check_files(version)
    source = version
    if to:
        if to == version.name:
            raise InputError(f"--to: {to} is the version's own model; leave --to out")
        version = registry.copy(version, to)
    moved = promotion.promote(client(), version, expect, reason, override)
    copied = {"copied_from": f"{source.name}/{source.version}"} if to else {}
    return _summary(moved) | copied


def _check_files(version: Any) -> None:
    """Refuse a version whose files would be refused wherever it is loaded, before anybody follows it.

    One that tuneline did not register has no manifest to be checked against, and is loaded nowhere by it.
    """
    if version.tags.get(lineage.MANIFEST):
        with tempfile.TemporaryDirectory() as folder:
            registry.download(version, Path(folder))


def rollback(name: str, expect: str | None, reason: str) -> dict[str, Any]:
    """Go back to the champion before.

    Args:
        name: the registered model.
        expect: the champion to go back from; None takes the one that is there.
        reason: why.

    Raises:
        InputError: no such model, or no champion before.
        ConflictError: another version is champion than expected.
    """
    open_state()
    return _summary(promotion.rollback(client(), registry.find_model(name), expect, reason))


def _summary(moved: promotion.Moved) -> dict[str, Any]:
    told = {
        "status": "succeeded" if moved.move else "unchanged",
        "model": moved.model,
        "champion": moved.version,
        "from": moved.before,
        "move": moved.move.summary() if moved.move else None,
        "outside": moved.outside.summary() if moved.outside else None,
    }
    if not moved.move:
        return told | {"hooks": []}
    told["kserve"] = _how_to_serve(moved)
    return told | {"hooks": hooks.run(told)}


def _how_to_serve(moved: promotion.Moved) -> dict[str, Any]:
    """What kserve.service tells; where it cannot, why: the champion has moved by now, and others are to hear of it."""
    api = client()
    try:
        return kserve.service(api, api.get_model_version(moved.model, moved.version))
    except Exception as error:
        return {"runtime": None, "why": [told_of(error)], "manifest": None}


def show(console: Console, result: dict[str, Any]) -> None:
    """What became of it, in a few lines."""
    name, champion, move = result["model"], result["champion"], result["move"]
    if found := result["outside"]:
        before, at = found["from"] or "none", found["to"] or "none"
        _line(console, f"warning: the alias had been moved outside of tuneline, {before} -> {at}; now in the history")
    if move is None:
        _line(console, f"{name}: version {champion} is champion already; nothing was moved")
        return
    if move["override"]:
        _line(console, "warning: the gate had refused this version; the override is in the history")
    _line(console, f"{name}: champion {result['from'] or 'none'} -> {champion} ({move['kind']} by {move['who']})")
    for hook in result["hooks"]:
        _line(console, f"hook {hook['hook']}: {'done' if hook['ok'] else 'warning: FAILED'} {hook['told']}".rstrip())
    _line(console, f"next      tuneline history {name}    or, to undo it,    tuneline rollback {name}")


def _line(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
