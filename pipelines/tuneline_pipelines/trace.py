"""tuneline trace: what a registered version was made of, by what, by whom and when, as its runs recorded it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.console import Console

from tuneline import ledger, lineage, registry
from tuneline.tracking import client
from tuneline_pipelines.state import open_state

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


def trace(reference: str) -> dict[str, Any]:
    """Where a version comes from.

    Args:
        reference: MODEL@alias or MODEL/VERSION.

    Returns:
        model, version, aliases, registered (by, at), copied_from (the versions that it is a copy of, nearest first),
        moves (of the champion, that concern it), gate, metrics, data (sha256, splits, manifest), base_model (name,
        revision), code (commit, version, python, packages), images of the steps, configuration, files (their hashes),
        and run (the pipeline's: id, experiment, status, started, kfp_run_id, steps). What no run recorded is null.

    Raises:
        InputError: no such version.
    """
    open_state()
    api = client()
    version = registry.find(reference)
    run = lineage.run_of(api, version.run_id)
    steps = lineage.steps_of(api, run)
    tags, known = version.tags, ledger.read(api, version.name)
    number = str(version.version)
    aliases = api.get_registered_model(version.name).aliases
    return {
        "model": version.name,
        "version": number,
        "aliases": sorted(alias for alias, at in aliases.items() if str(at) == number),
        "registered": {"by": tags.get("tuneline.registered_by"), "at": _when(version.creation_timestamp)},
        "copied_from": _origins(api, version),
        "moves": [move.summary() for move in known.moves if number in (move.to, move.before)],
        "gate": {key.removeprefix("tuneline."): tags[key] for key in sorted(tags) if key.startswith("tuneline.gate")},
        "metrics": {
            key.removeprefix("tuneline.metric."): float(tags[key]) for key in tags if key.startswith("tuneline.metric.")
        },
        "data": _data(run, steps, tags),
        "base_model": _base_model(steps, tags),
        "code": _code(run, steps),
        "images": {name: step.data.tags.get("tuneline.image") for name, step in steps.items()},
        "configuration": _configuration(run, steps),
        "files": {
            key: tags.get(f"tuneline.{key}") for key in ("manifest_sha256", "weights_sha256")
        },
        "run": _pipeline(api, run, steps),
    }  # fmt: skip


def _origins(api: MlflowClient, version: Any) -> list[str]:
    from mlflow.exceptions import MlflowException

    origins: list[str] = []
    while (origin := version.tags.get(registry.COPIED)) and origin not in origins:
        origins.append(origin)
        try:
            version = api.get_model_version(*origin.rsplit("/", 1))
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            break
    return origins


def _data(run: Run | None, steps: dict[str, Run], tags: dict[str, str]) -> dict[str, Any]:
    inputs = [one.inputs.dataset_inputs for one in (*steps.values(), run) if one and one.inputs]
    splits: dict[str, Any] = {}
    for given in next(filter(None, inputs), []):
        profile, source = json.loads(given.dataset.profile or "{}"), json.loads(given.dataset.source or "{}")
        splits[given.dataset.name] = profile | {"source": source.get("uri")}
    prepare = steps.get("prepare")
    manifest = f"runs:/{prepare.info.run_id}/manifest.json" if prepare else None
    return {"sha256": tags.get("tuneline.data_sha256"), "splits": splits, "manifest": manifest}


def _base_model(steps: dict[str, Run], tags: dict[str, str]) -> dict[str, Any]:
    made_by = steps["train"].data.tags if "train" in steps else {}
    return {"name": tags.get("tuneline.base_model"), "revision": made_by.get("tuneline.base_model_revision")}


def _code(run: Run | None, steps: dict[str, Run]) -> dict[str, Any]:
    made_by = steps.get("train") or run
    tags = made_by.data.tags if made_by else {}
    prefix = "tuneline.version."
    packages = {key.removeprefix(prefix): tags[key] for key in sorted(tags) if key.startswith(prefix)}
    return {
        "commit": tags.get("mlflow.source.git.commit"),
        "version": tags.get("tuneline.version"),
        "python": tags.get("tuneline.python"),
        "packages": packages,
    }


def _configuration(run: Run | None, steps: dict[str, Run]) -> dict[str, str]:
    """The flat recipe: of the pipeline's run, else of its steps together."""
    params: dict[str, str] = {}
    for one in (*steps.values(), run):
        params |= one.data.params if one else {}
    return dict(sorted(params.items()))


def _pipeline(api: MlflowClient, run: Run | None, steps: dict[str, Run]) -> dict[str, Any] | None:
    if run is None:
        return None
    return {
        "id": run.info.run_id,
        "experiment": api.get_experiment(run.info.experiment_id).name,
        "status": run.info.status,
        "started": _when(run.info.start_time),
        "kfp_run_id": run.data.tags.get("tuneline.kfp_run_id"),
        "steps": {name: step.info.run_id for name, step in steps.items()},
    }


def _when(milliseconds: int | None) -> str | None:
    if milliseconds is None:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def show(console: Console, found: dict[str, Any]) -> None:
    """A line a fact; the configuration and the packages, which are many, at the end."""
    run, code, base = found["run"] or {}, found["code"], found["base_model"]
    splits = found["data"]["splits"].items()
    rows = {
        "model": f"{found['model']} version {found['version']} ({', '.join(found['aliases']) or 'no alias'})",
        "registered": f"{found['registered']['at']} by {found['registered']['by'] or 'unknown'}",
        "copied from": ", ".join(found["copied_from"]),
        "champion": "; ".join(f"{move['kind']} {move['at'][:19]}Z by {move['who']}" for move in found["moves"]),
        "gate": found["gate"].get("gate", "not judged"),
        "data": found["data"]["sha256"],
        **{f"  {name}": f"{one.get('num_rows')} rows, {one['source']}" for name, one in splits},
        "  manifest": found["data"]["manifest"],
        "base model": " at ".join(filter(None, (base["name"], base["revision"]))),
        "code": f"commit {code['commit'] or 'unknown'}, tuneline {code['version']}, python {code['python']}",
        "images": ", ".join(f"{step} {image}" for step, image in found["images"].items() if image),
        "run": f"{run.get('id', 'deleted')} in {run.get('experiment')}, {run.get('started')}, {run.get('status')}",
        "kfp run": run.get("kfp_run_id"),
        "files": f"manifest {found['files']['manifest_sha256']}, weights {found['files']['weights_sha256']}",
        "configuration": ", ".join(f"{key}={value}" for key, value in found["configuration"].items()),
        "packages": ", ".join(f"{name} {version}" for name, version in code["packages"].items()),
    }  # fmt: skip
    for name, value in rows.items():
        if value:
            console.print(f"{name:14} {value}", markup=False, highlight=False, soft_wrap=True)
