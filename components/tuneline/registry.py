"""Versions and aliases: the one place that speaks to MLflow's model registry."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import url2pathname

from tuneline import ledger, lineage, promotion, safety
from tuneline.artifacts import Decision, sha256_file
from tuneline.errors import InputError, ServiceError
from tuneline.tracking import StepRun, client
from tuneline.trouble import patiently

if TYPE_CHECKING:
    from mlflow import MlflowClient

Result = TypeVar("Result")
TEST_SET = "tuneline.test_sha256"
"""The tag that tells on which test set the gate has judged a version."""
GATE = "tuneline.gate"
"""The tag that tells whether the gate passed a version; of each rule, tuneline.gate.RULE tells what it found."""
PASSED, REFUSED = "passed", "refused"
CHALLENGER = "challenger"
COPIED = "tuneline.copied_from"


def add_version(
    run: StepRun, name: str, model: Path, tags: dict[str, str], evaluation: Path | None = None
) -> str:  # fmt: skip
    """Store a model folder as an MLflow PyFunc and register it. Data only, no code.

    It belongs to the pipeline's run, where people look for it, or to the step's own without one. A
    retried step finds the version that it made before: the same files are registered once a run, and the gate's tags
    are then those of the later verdict, by which the aliases move.

    Args:
        run: the step's run.
        name: the registered model.
        model: folder of TrainedModel.
        tags: of the version.
        evaluation: folder of Evaluation, whose answers are kept for comparisons; None keeps none.

    Returns:
        The version's number, as text.

    Raises:
        InputError: a file of the model is missing or does not belong there, or the name is a ledger's.
        ServiceError: not all of the model's files arrived; then there is no version.
    """
    _check_name("register.name", name)
    api, owner = run.api, run.parent or run.run_id
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "model"
        manifest = _save_pyfunc(saved, model)
        if made := _only_version(api, name, owner, lineage.MANIFEST, manifest):
            _judge_again(api, name, made, tags)
            return made
        place = f"model-{manifest[:12]}"
        api.log_artifacts(owner, str(saved), place)
        _require_all(api, owner, saved, place)
    if evaluation:
        tags = tags | {lineage.EVALUATION: (answers := f"evaluation-{manifest[:12]}")}
        lineage.store_evaluation(api, owner, evaluation, answers)
    create_model(api, name)
    # The server refuses a source outside the artifacts of the run that the version belongs to.
    source = f"{patiently(lambda: api.get_run(owner)).info.artifact_uri}/{place}"
    tags = tags | {
        lineage.WEIGHTS: sha256_file(model / "model.safetensors"), lineage.MANIFEST: manifest,
        "tuneline.registered_by": ledger.who(),
    }  # fmt: skip
    patiently(lambda: api.create_model_version(name, source, owner, tags=tags))
    return str(_only_version(api, name, owner, lineage.MANIFEST, manifest))


def _judge_again(api: MlflowClient, name: str, version: str, tags: dict[str, str]) -> None:
    """Put a later verdict's tags in the place of the earlier one's; what it comes to is written last."""
    new = {key: value for key, value in tags.items() if key.startswith(f"{GATE}.")}
    for key in patiently(lambda: api.get_model_version(name, version)).tags:
        if key.startswith(f"{GATE}.") and key not in new:
            patiently(partial(api.delete_model_version_tag, name, version, key))
    for key, value in (new | {GATE: tags[GATE]} if GATE in tags else new).items():
        patiently(partial(api.set_model_version_tag, name, version, key, value))


def _only_version(api: MlflowClient, name: str, owner: str, tag: str, value: str) -> str | None:
    """The version of a run that bears the tag; of several, which a request makes whose answer was lost, one is left.

    The lowest stays, so that all who look at once leave the same; one that holds an alias is not deleted.
    """
    from mlflow.exceptions import MlflowException

    found = patiently(lambda: api.search_model_versions(f"name = '{name}' and run_id = '{owner}'"))
    versions = sorted(int(version.version) for version in found if version.tags.get(tag) == value)
    if len(versions) > 1:
        held = {int(version) for version in patiently(lambda: api.get_registered_model(name)).aliases.values()}
        for version in versions[1:]:
            try:
                if version not in held:
                    patiently(partial(api.delete_model_version, name, str(version)))
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":  # another retry has deleted it
                    raise
    return str(versions[0]) if versions else None


def _check_name(key: str, name: str) -> None:
    if name.endswith(ledger.SUFFIX):
        raise InputError(f"{key}: {name}: names that end in {ledger.SUFFIX} hold the histories of models")


def create_model(api: MlflowClient, name: str) -> None:
    """Make a registered model where there is none of that name."""
    from mlflow.exceptions import MlflowException

    try:
        patiently(lambda: api.create_registered_model(name))
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


def _save_pyfunc(path: Path, model: Path) -> str:
    """Write the PyFunc's folder, with the manifest of the model's files in it; gives the manifest's SHA-256."""
    import mlflow.pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    safety.check_folder(model)
    names = ["text", "pair"] if Decision.load(model).pairs else [None]
    signature = ModelSignature(Schema([ColSpec(DataType.string, name) for name in names]))
    mlflow.pyfunc.save_model(
        str(path), loader_module=safety.LOADER, data_path=str(model), signature=signature,
        pip_requirements=["tuneline[train]"],
    )  # fmt: skip
    return safety.write_manifest(path / "data" / model.name)


def copy(version: Any, target: str) -> Any:
    """The version of another registered model that is the same model, such as prod's of staging's; made once.

    It is what MlflowClient.copy_model_version makes, with the tags that a repeated call finds it by from the first. No
    file is copied: it reads the files that its source was registered with.

    Raises:
        InputError: the target's name is a ledger's.
    """
    _check_name("--to", target)
    api, origin = client(), f"{version.name}/{version.version}"
    find = partial(_only_version, api, target, version.run_id, COPIED, origin)
    if not (made := find()):
        create_model(api, target)
        tags, told = version.tags | {COPIED: origin}, version.description
        patiently(lambda: api.create_model_version(target, f"models:/{origin}", version.run_id, tags, description=told))
        made = find()
    return patiently(lambda: api.get_model_version(target, str(made)))


def set_aliases(name: str, version: str) -> list[str]:
    """Make a version that passed the gate challenger, unless a later one passed, and champion where there is none.

    The champion is moved through the ledger: of two first versions that ask at once, one becomes it.

    Returns:
        The aliases that it holds.
    """
    api = client()
    _follow_challenger(api, name, int(version))
    evidence = promotion.evidence_of(patiently(lambda: api.get_model_version(name, version)))
    promotion.become_first(api, name, version, evidence)
    return sorted(alias for alias, at in _aliases(api, name).items() if str(at) == version)


def withdraw(name: str, version: str) -> list[str]:
    """Let a version that the gate refused be challenger no more, where a step that is retried had passed it before.

    Returns:
        The aliases that it holds: a champion is moved by people.
    """
    api = client()
    if str(_aliases(api, name).get(CHALLENGER)) == version:
        _follow_challenger(api, name)
    return sorted(alias for alias, at in _aliases(api, name).items() if str(at) == version)


def _follow_challenger(api: MlflowClient, name: str, passed: int = 0) -> None:
    """Let the alias follow the last version that passed the gate.

    That is what the versions' tags say, the alias has no history of its own. Of two who set it at once, the later to
    write may know the earlier version: so it is set until the tags, read again after that, say the same.
    """
    while True:
        versions = patiently(lambda: api.search_model_versions(f"name = '{name}'"))
        last = max([passed, *(int(found.version) for found in versions if found.tags.get(GATE) == PASSED)])
        at = _aliases(api, name).get(CHALLENGER)
        if int(at or 0) == last:
            return
        if last:
            patiently(partial(api.set_registered_model_alias, name, CHALLENGER, str(last)))
        else:
            patiently(partial(api.delete_registered_model_alias, name, CHALLENGER))


def _aliases(api: MlflowClient, name: str) -> dict[str, str]:
    return patiently(lambda: api.get_registered_model(name)).aliases


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
        if name.endswith(ledger.SUFFIX):
            raise InputError(f"{name}: holds the history of a model; see `tuneline history`")
        ask = api.get_model_version_by_alias if at else api.get_model_version
        return patiently(lambda: ask(name, alias if at else version))
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise InputError(f"{reference}: {_missing(api, name, alias if at else '', version)}") from None


def _missing(api: MlflowClient, name: str, alias: str, version: str) -> str:
    """Why a reference names no version, and what does."""
    from mlflow.exceptions import MlflowException

    try:
        patiently(lambda: api.get_registered_model(name))
    except MlflowException:
        return f"not in the registry; registered models: {_known(api)}"
    found = sorted(int(one.version) for one in patiently(lambda: api.search_model_versions(f"name = '{name}'")))
    if not found:
        return "the registered model has no version yet"
    shown = ", ".join(map(str, found[-5:]))
    if not alias:
        return f"no version {version}; the latest: {shown}"
    made = f", or make it champion: tuneline promote {name}/{found[-1]}" if alias == ledger.CHAMPION else ""
    return f"no version has the alias {alias}; the latest: {shown}; name one as {name}/{found[-1]}{made}"


def champion(name: str) -> Any | None:
    """The champion of a registered model; None where there is none."""
    from mlflow.exceptions import MlflowException

    try:
        return patiently(lambda: client().get_model_version_by_alias(name, ledger.CHAMPION))
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return None


def decided_before(name: str, test_sha256: str, owner: str) -> int:
    """How many versions of a model, of other runs than `owner`, the gate has judged on this test set."""
    if not test_sha256:
        return 0
    found = patiently(lambda: client().search_model_versions(f"name = '{name}'"))
    return sum(version.tags.get(TEST_SET) == test_sha256 and version.run_id != owner for version in found)


def find_model(name: str) -> str:
    """The name, where a model is registered under it.

    Raises:
        InputError: there is none.
    """
    from mlflow.exceptions import MlflowException

    api = client()
    try:
        return patiently(lambda: api.get_registered_model(name)).name
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise InputError(f"{name or repr(name)}: no model of that name; registered models: {_known(api)}") from None


def _known(api: MlflowClient) -> str:
    names = sorted(model.name for model in api.search_registered_models() if not model.name.endswith(ledger.SUFFIX))
    return ", ".join(names) or "none"


def download(version: Any, folder: Path) -> Path:
    """The model folder of a version, fetched into `folder`, after every file was checked against what was registered.

    Raises:
        InputError: not a version of tuneline, or a file is missing, changed, a link, or does not belong there.
    """
    from mlflow.artifacts import download_artifacts

    name = f"{version.name}/{version.version}"
    if not (manifest := version.tags.get(lineage.MANIFEST)):
        raise InputError(f"{name}: not registered by tuneline (it has no tag {lineage.MANIFEST}); not loaded")
    source = client().get_model_version_download_uri(version.name, str(version.version))
    if local := _local(source):
        _named(name, local, safety.check_links)  # a download would follow them
    got = Path(download_artifacts(artifact_uri=source, dst_path=str(folder)))
    model = _named(name, got, safety.check_around)
    _named(name, got, lambda _: safety.check_folder(model, manifest))
    return model


def _local(uri: str) -> Path | None:
    """Where an artifact lies that is on this machine."""
    parts = urlsplit(uri)
    return Path(url2pathname(parts.path)) if parts.scheme in ("", "file") else None


def _named(name: str, folder: Path, check: Callable[[Path], Result]) -> Result:
    """Run a check of a folder; what it says is told of the version, and not of a folder that will be gone."""
    try:
        return check(folder)
    except InputError as error:
        raise InputError(f"{name}: {str(error).replace(f'{folder}/', '').replace(f'{folder}: ', '')}") from None
