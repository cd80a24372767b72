"""What tuneline plan tells when it has measured: one object for scripts, and lines for a person."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from tuneline.artifacts import SPLITS, PreparedData
from tuneline.config import Recipe
from tuneline.train.forecast import Forecast
from tuneline_pipelines.resources import Profile
from tuneline_pipelines.state import home


@dataclass(frozen=True)
class Limit:
    """A memory that must do.

    Attributes:
        mb: megabytes for one process.
        of: whose they are.
    """

    mb: float
    of: str


@dataclass(frozen=True)
class Found:
    """What the rehearsals came to.

    Attributes:
        first: of the recipe as it is.
        final: of what fits; the first where that does.
        limit: the memory.
    """

    first: Forecast
    final: Forecast
    limit: Limit


def disk_mb() -> float:
    """Megabytes that are free where runs are kept."""
    place = home()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free / 1e6


def result(
    recipe: Recipe, profile: Profile | None, manifest: PreparedData, audit: dict[str, Any], found: Found,
    prepare_seconds: float, prepared_mb: float,
) -> dict[str, Any]:  # fmt: skip
    """The result of tuneline plan, ready for JSON.

    Args:
        recipe: what would be run.
        profile: the cluster; None for this machine.
        manifest: of the prepared data.
        audit: audit.json.
        found: the rehearsals.
        prepare_seconds: what preparing took here.
        prepared_mb: megabytes of prepared data.
    """
    final, start = found.final, found.final.last("start")
    seconds = {name: value.told() for name, value in final.seconds().items()}
    cost = final.cost()
    disk = {"prepared": prepared_mb, **final.disk_mb()}
    memory = _memory(found)
    return {
        "status": "succeeded",
        "model": recipe.register_.name,
        "measured_on": {
            "device": start["name"] or "CPU", "threads": start["threads"], "processes": 1, "how": start["how"],
            "parameters": start["parameters"], "steps": len(final.all("step")), "cpu_share": final.cpu_share,
        },
        "data": {
            "rows": manifest.rows, "tokens": final.tokens, "longest": start["longest"], "labels": len(manifest.labels),
            "tokenized": min(1.0, 1 / final.scale), "notes": manifest.notes,
        },
        "steps": {"total": final.steps, "epochs": recipe.train.epochs, "batch_size": recipe.train.batch_size},
        "memory": memory,
        "seconds": {"prepare": prepare_seconds, **seconds},
        "cost": cost.told() if cost else None,
        "disk_mb": disk | {"total": sum(disk.values()), "free": disk_mb()},
        "do": _do(recipe, manifest, final),
        "warnings": _warnings(recipe, profile, audit, found, disk),
    }  # fmt: skip


def _memory(found: Found) -> dict[str, Any]:
    first, final = found.first.memory, found.final.memory
    assert final is not None  # what fits was measured  # noqa: S101
    longest = found.final.last("start")["longest"]
    most = found.final.pass_tokens(found.limit.mb) or longest
    if found.final is not found.first:  # measured, where the line from the smaller ones is only a guess
        most = found.final.settings.pass_tokens
    return {
        "fits": found.final is found.first,
        "peak_mb": first.peak(first.heaviest) if first else None,
        "limit_mb": found.limit.mb, "limit_of": found.limit.of, "on": "GPU" if found.final.on_gpu else "CPU",
        "host_mb": found.final.last("end")["host_mb"],
        "mb_per_1000_tokens": final.line.slope * 1000,
        "heaviest_pass_tokens": found.first.last("heaviest").get("tokens"),
        "fitting": {
            "pass_tokens": most, "batch_size": max(1, most // longest), "measured_tokens": final.heaviest,
            "peak_mb": final.peak(final.heaviest),
        },
    }  # fmt: skip


def _do(recipe: Recipe, manifest: PreparedData, final: Forecast) -> list[str]:
    """What a run would do, a sentence a step."""
    data, train, rules = recipe.data, recipe.train, recipe.register_.rules
    made = [name for name in SPLITS[1:] if not getattr(data, name)]
    split = f", split off {' and '.join(made)}" if made else ""
    rows = ", ".join(f"{count:,} {name}" for name, count in manifest.rows.items())
    asked = [name for name, value in rules if value not in (None, False, "ignore") and name not in ("margin", "metric")]
    tuned = "" if train.tune == "all" else f", tuning {train.tune}"
    return [
        f"prepare: read {data.train}{split}, {recipe.model.long_texts} of {recipe.model.max_length} tokens: {rows}",
        f"train: {recipe.model.name} for {final.steps:,} steps of {train.batch_size} texts{tuned}",
        f"evaluate: {manifest.rows['test']:,} test texts, beside TF-IDF with logistic regression and the champion",
        f"register: as {recipe.register_.name}, with an alias if it meets {', '.join(asked) or 'no rule at all'}",
    ]


def _warnings(
    recipe: Recipe, profile: Profile | None, audit: dict[str, Any], found: Found, disk: dict[str, float]
) -> list[str]:
    final, settings = found.final, recipe.train
    told = [finding["message"] for finding in audit["findings"] if finding["severity"] == "warning"]
    if final.scale > 1:
        told.append(
            f"tokens were counted on {final.last('start')['read']['train']:,} training texts; the others are taken to "
            "be alike"
        )
    if found.final is not found.first:
        told.append(
            f"too little memory as it is: take train.pass_tokens={final.settings.pass_tokens}, with the same result"
        )
    if why := final.last("states").get("why"):
        told.append(f"{why}: the frozen layers are computed at every step")
    if settings.early_stopping:
        told.append("train.early_stopping may end the training sooner: steps, time and cost are the most")
    if (processes := settings.distributed.processes) > 1:
        told.append(
            f"measured with one of {processes} processes, on its part of the texts: what they tell each other takes "
            "time that is not counted"
        )
    if final.busy:
        told.append(
            "other processes want this machine's processor too, and the times vary with them; the low end of the range "
            "is by processor time"
        )
    if profile and profile.steps.train.accelerator and not final.on_gpu:
        told.append(
            "the profile asks for a GPU, and there is none here: time and memory are those of this machine's processor"
        )
    if sum(disk.values()) > disk_mb() and profile is None:
        told.append(f"{sum(disk.values()):,.0f} MB of disk are wanted, and {disk_mb():,.0f} free at {home()}")
    return told


def show(console: Console, result: dict[str, Any]) -> None:
    """The plan as lines: what is known of data, steps, memory, time, cost and disk; what would be done; warnings."""
    for name, text in _lines(result):
        console.print(f"{name:9} {text}", markup=False, highlight=False, soft_wrap=True)
    for number, text in enumerate(result["do"], start=1):
        console.print(f"{f'step {number}':9} {text}", markup=False, highlight=False, soft_wrap=True)
    for text in result["warnings"]:
        console.print(f"warning   {text}", style="yellow", markup=False, highlight=False, soft_wrap=True)


def _lines(result: dict[str, Any]) -> list[tuple[str, str]]:
    data, steps, seconds, on = (result[name] for name in ("data", "steps", "seconds", "measured_on"))
    rows, tokens, disk = data["rows"], data["tokens"], result["disk_mb"]
    counted = "" if data["tokenized"] == 1 else f", counted on {data['tokenized']:.1%} of the texts"
    parts = ", ".join(
        f"{name} {_clock(value['expected'])}" for name, value in seconds.items()
        if name not in ("prepare", "total") and value["expected"] >= 0.5
    )  # fmt: skip
    found = [
        ("data", f"{rows['train']:,} texts to train on, {rows['validation']:,} to validate, {rows['test']:,} to test; "
                 f"{data['labels']} labels"),
        ("tokens", f"{tokens['train']:,} to train on, {tokens['validation']:,} to validate; the longest text has "
                   f"{data['longest']}{counted}"),
        ("steps", f"{steps['total']:,}: {steps['epochs']} epochs of {steps['total'] // steps['epochs']:,}, "
                  f"{steps['batch_size']} texts each"),
        ("measured", f"{on['device']}, {on['threads']} threads, {on['steps']} steps timed; {on['how']}"),
        ("memory", _memory_line(result["memory"])),
        ("time", f"{_span(seconds['total'], _clock)} to train ({parts}); prepare took {_clock(seconds['prepare'])}, "
                 f"evaluate and register come on top"),
    ]  # fmt: skip
    if result["cost"]:
        found.append(("cost", f"{_span(result['cost'], lambda value: f'{value:.3g}')} by train.price_per_hour"))
    names = ("prepared", "checkpoints", "states", "model")
    sizes = ", ".join(f"{name} {_mb(disk[name])}" for name in names if disk[name])
    return [*found, ("disk", f"{_mb(disk['total'])} ({sizes}); {_mb(disk['free'])} free here")]


def _memory_line(memory: dict[str, Any]) -> str:
    fitting, limit = memory["fitting"], f"{_mb(memory['limit_mb'])} of {memory['limit_of']}"
    most = (
        f"train.pass_tokens={fitting['pass_tokens']}, which is {fitting['batch_size']:,} of the longest texts at once"
    )
    if memory["fits"]:
        return f"{_mb(memory['peak_mb'])} at most, of the {limit}: fits; so would, by what was measured, {most}"
    asked = f"{_mb(memory['peak_mb'])}, more than the {limit}" if memory["peak_mb"] else f"more than the {limit}"
    return f"{asked}; {_mb(fitting['peak_mb'])} with {most}"


def _span(value: dict[str, float], shown: Callable[[float], str]) -> str:
    return f"{shown(value['expected'])} ({shown(value['low'])} to {shown(value['high'])})"


def _clock(seconds: float) -> str:
    """Minutes and seconds, with hours where there are any."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _mb(value: float) -> str:
    return f"{value / 1000:.1f} GB" if value >= 1000 else f"{value:.0f} MB"
