"""Versions and aliases: the one place that speaks to MLflow's model registry."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from tuneline.artifacts import sha256_file
from tuneline.errors import InputError
from tuneline.tracking import StepRun, client

CHAMPION, CHALLENGER = "champion", "challenger"


def add_version(run: StepRun, name: str, model: Path, tags: dict[str, str]) -> str:
    """Store a model folder as an MLflow PyFunc and register it. Data only, no code.

    It belongs to the pipeline's run, where people look for it, or to the step's own without one. A
    retried step finds the version that it made before: the same weights are registered once a run.

    Returns:
        The version's number, as text.
    """
    from mlflow.exceptions import MlflowException

    api, owner = run.api, run.parent or run.run_id
    tags = tags | {"tuneline.weights_sha256": sha256_file(model / "model.safetensors")}
    for known in api.search_model_versions(f"name = '{name}' and run_id = '{owner}'"):
        if known.tags.get("tuneline.weights_sha256") == tags["tuneline.weights_sha256"]:
            return str(known.version)
    # The server refuses a source outside the artifacts of the run that the version belongs to.
    place = f"model-{tags['tuneline.weights_sha256'][:12]}"
    with tempfile.TemporaryDirectory() as folder:
        _save_pyfunc(Path(folder) / "model", model)
        api.log_artifacts(owner, str(Path(folder) / "model"), place)
    try:
        api.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    source = f"{api.get_run(owner).info.artifact_uri}/{place}"
    return str(api.create_model_version(name, source, owner, tags=tags).version)


def _save_pyfunc(path: Path, model: Path) -> None:
    import mlflow.pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    signature = ModelSignature(Schema([ColSpec(DataType.string)]))
    mlflow.pyfunc.save_model(
        str(path), loader_module="tuneline.serve.model", data_path=str(model), signature=signature,
        pip_requirements=["tuneline[train]"],
    )  # fmt: skip


def set_aliases(name: str, version: str) -> list[str]:
    """Make the version challenger, and champion where there is none; of two that do so at once, the last one wins.

    Returns:
        The aliases that it holds.
    """
    api = client()
    api.set_registered_model_alias(name, CHALLENGER, version)
    if CHAMPION not in api.get_registered_model(name).aliases:
        api.set_registered_model_alias(name, CHAMPION, version)
    aliases = api.get_registered_model(name).aliases
    return sorted(alias for alias, at in aliases.items() if str(at) == version)


def find(reference: str) -> Any:
    """The version that `MODEL@alias` or `MODEL/VERSION` names.

    Raises:
        InputError: no such model, alias or version.
    """
    from mlflow.exceptions import MlflowException

    api = client()
    name, at, alias = reference.rpartition("@")
    name, version = (name, "") if at else reference.rpartition("/")[::2]
    if not name or not (alias if at else version):
        raise InputError(f"{reference}: not a model; write MODEL@alias or MODEL/VERSION, such as quickstart@champion")
    try:
        return api.get_model_version_by_alias(name, alias) if at else api.get_model_version(name, version)
    except MlflowException:
        known = ", ".join(sorted(model.name for model in api.search_registered_models())) or "none"
        raise InputError(f"{reference}: not in the registry; registered models: {known}") from None


def download(version: Any, folder: Path) -> Path:
    """The TrainedModel folder of a version, fetched into `folder`."""
    from mlflow.artifacts import download_artifacts

    got = Path(download_artifacts(artifact_uri=version.source, dst_path=str(folder)))
    models = sorted((got / "data").iterdir()) if (got / "data").is_dir() else []
    if len(models) != 1:
        raise InputError(f"{version.name}/{version.version}: not registered by tuneline (no single folder under data/)")
    return models[0]
