"""Versions and aliases: the one place that speaks to MLflow's model registry."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneline.artifacts import Decision, sha256_file
from tuneline.errors import InputError, ServiceError
from tuneline.tracking import StepRun, client

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION, CHALLENGER = "champion", "challenger"


def add_version(run: StepRun, name: str, model: Path, tags: dict[str, str]) -> str:
    """Store a model folder as an MLflow PyFunc and register it. Data only, no code.

    It belongs to the pipeline's run, where people look for it, or to the step's own without one. A
    retried step finds the version that it made before: the same weights are registered once a run.

    Returns:
        The version's number, as text.

    Raises:
        ServiceError: not all of the model's files arrived; then there is no version.
    """
    api, owner, weights = run.api, run.parent or run.run_id, sha256_file(model / "model.safetensors")
    if made := _versions(api, name, owner, weights):
        return str(made[0])
    place = f"model-{weights[:12]}"
    with tempfile.TemporaryDirectory() as folder:
        _save_pyfunc(Path(folder) / "model", model)
        api.log_artifacts(owner, str(Path(folder) / "model"), place)
        _require_all(api, owner, Path(folder) / "model", place)
    _create_model(api, name)
    # The server refuses a source outside the artifacts of the run that the version belongs to.
    source = f"{api.get_run(owner).info.artifact_uri}/{place}"
    api.create_model_version(name, source, owner, tags=tags | {"tuneline.weights_sha256": weights})
    first, *again = _versions(api, name, owner, weights)
    for version in again:  # the answer to a request was lost, and the client asked once more
        api.delete_model_version(name, str(version))
    return str(first)


def _versions(api: MlflowClient, name: str, owner: str, weights: str) -> list[int]:
    """The numbers of the versions that a run made of these weights, the lowest first."""
    known = api.search_model_versions(f"name = '{name}' and run_id = '{owner}'")
    return sorted(int(found.version) for found in known if found.tags.get("tuneline.weights_sha256") == weights)


def _create_model(api: MlflowClient, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        api.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _require_all(api: MlflowClient, owner: str, folder: Path, place: str) -> None:
    """Refuse to go on where a file is missing at the store, or shorter than it is here."""
    wanted = {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    stored = dict(_stored(api, owner, place))
    for name, size in sorted(wanted.items()):
        if (found := stored.get(f"{place}/{name}")) != size:
            raise ServiceError(
                f"MLflow: the model's file {name} has {size} bytes, and its artifact store holds {found or 0}; "
                f"not registered, run again"
            )


def _stored(api: MlflowClient, owner: str, place: str) -> Iterator[tuple[str, int | None]]:
    for file in api.list_artifacts(owner, place):
        if file.is_dir:
            yield from _stored(api, owner, file.path)
        else:
            yield file.path, file.file_size


def _save_pyfunc(path: Path, model: Path) -> None:
    import mlflow.pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    names = ["text", "pair"] if Decision.load(model).pairs else [None]
    signature = ModelSignature(Schema([ColSpec(DataType.string, name) for name in names]))
    mlflow.pyfunc.save_model(
        str(path), loader_module="tuneline.serve.model", data_path=str(model), signature=signature,
        pip_requirements=["tuneline[train]"],
    )  # fmt: skip


def set_aliases(name: str, version: str) -> list[str]:
    """Make the version challenger, and champion where there is none.

    MLflow cannot set an alias on a condition: of two first versions that ask at once, the last one stays champion.

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
