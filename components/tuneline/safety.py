"""What a model folder may hold before anything of it is loaded: data only, and only what was registered.

A registered model carries `files.json`, the SHA-256 of each of its files; the hash of `files.json` itself is a tag of
the version (registry.py). Nothing here imports a library that could run what it reads.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tuneline.artifacts import read_json, sha256_file, write_json
from tuneline.errors import InputError
from tuneline.tokenizer import TOKENIZER_FILES

MANIFEST = "files.json"
NEEDED = ("config.json", "model.safetensors", "tokenizer.json", "tuneline.json")
ALLOWED_FILES = {*NEEDED, *TOKENIZER_FILES, MANIFEST}
LOADER = "tuneline.serve.model"
_AROUND = {"MLmodel", "conda.yaml", "python_env.yaml", "requirements.txt", "registered_model_meta"}
"""What MLflow puts around a model folder; the last one when it downloads."""
_FLAVOR = {"config", "data", "env", "loader_module", "python_version", "streamable"}
"""The keys of MLmodel that hold no code."""
_ARCHITECTURE = "ForSequenceClassification"
_CODE = {
    "auto_map": "names Python code to run",
    "custom_pipelines": "names Python code to run",
    "trust_remote_code": "asks for code to be trusted",
    "attn_implementation": "may name code on a hub",
    "_attn_implementation": "may name code on a hub",
    "experts_implementation": "may name code on a hub",
    "_experts_implementation": "may name code on a hub",
}
"""Keys of a Hugging Face configuration by which code gets in."""


def write_manifest(folder: Path) -> str:
    """Write `files.json`, the SHA-256 and bytes of every other file, into a model folder.

    Returns:
        The SHA-256 of `files.json`: equal files give the same.

    Raises:
        InputError: a file is missing, or does not belong there.
    """
    (folder / MANIFEST).unlink(missing_ok=True)
    check_folder(folder)
    files = sorted(folder.iterdir())
    write_json(
        folder / MANIFEST, {path.name: {"sha256": sha256_file(path), "bytes": path.stat().st_size} for path in files}
    )
    return sha256_file(folder / MANIFEST)


def check_folder(folder: Path, manifest: str | None = None) -> None:
    """Refuse a model folder that holds anything but a model's data, or other data than its manifest says.

    Args:
        folder: a TrainedModel folder; where it holds a `files.json`, every file is checked against it.
        manifest: what the SHA-256 of `files.json` must be; None asks for none.

    Raises:
        InputError: a file is missing, is not allowed, is a link, names code, or is not the one that was registered.
    """
    found = {path.name for path in _plain_files(folder)}
    for name in NEEDED:
        if name not in found:
            raise InputError(f"{folder}: no {name}; not a model folder of tuneline")
    if strange := sorted(found - ALLOWED_FILES):
        raise InputError(f"{folder}: {strange[0]} does not belong in a model folder; not loaded")
    if manifest is not None:
        _check_manifest(folder, manifest)
    if MANIFEST in found:
        _check_hashes(folder, found - {MANIFEST})
    _check_config(folder)


def check_links(folder: Path) -> None:
    """Refuse a folder in which anything, at any depth, is a link or another special file.

    Raises:
        InputError: names it.
    """
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            kind = "a symbolic link" if stat.S_ISLNK(mode) else "a special file"
            raise InputError(f"{path}: is {kind}, which may lead out of the model's folder; not loaded")


def check_around(artifact: Path) -> Path:
    """The model folder within a downloaded PyFunc, around which lies nothing that could run.

    Raises:
        InputError: a file does not belong there, or MLmodel names code or a place outside.
    """
    check_links(artifact)
    inside = sorted((artifact / "data").iterdir()) if (artifact / "data").is_dir() else []
    if len(inside) != 1 or not inside[0].is_dir():
        raise InputError(f"{artifact}: not registered by tuneline (no single folder under data/)")
    if strange := sorted({path.name for path in artifact.iterdir()} - _AROUND - {"data"}):
        raise InputError(f"{artifact}: {strange[0]} does not belong beside a model; not loaded")
    _check_mlmodel(artifact / "MLmodel", inside[0])
    return inside[0]


def check_registered(folder: Path) -> None:
    """Refuse the model folder of a PyFunc that was not registered with a manifest, or that is not as it was stored.

    MLflow hands a folder over, and not the version whose tag holds the manifest's hash: that hash is not checked here.

    Raises:
        InputError: there is no manifest, or something that does not belong there lies around the folder.
    """
    if not (folder / MANIFEST).is_file():
        raise InputError(f"{folder}: no {MANIFEST}, the list of the model's files and their hashes; not loaded")
    if check_around(folder.parents[1]) != folder:
        raise InputError(f"{folder}: is not the model's folder; not loaded")


def _plain_files(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        return
    check_links(folder)
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            raise InputError(f"{folder}: {path.name} does not belong in a model folder; not loaded")
        yield path


def _check_manifest(folder: Path, wanted: str) -> None:
    if not (folder / MANIFEST).is_file():
        raise InputError(f"{folder}: no {MANIFEST}, the list of the model's files and their hashes; not loaded")
    if sha256_file(folder / MANIFEST) != wanted:
        raise InputError(f"{folder / MANIFEST}: is not the one that was registered (its SHA-256 differs); not loaded")


def _check_hashes(folder: Path, found: set[str]) -> None:
    listed = _json(folder / MANIFEST)
    for name in sorted(listed):
        if name not in ALLOWED_FILES - {MANIFEST}:
            raise InputError(f"{folder / MANIFEST}: {name!r} is not the name of a model's file; not loaded")
    if found != set(listed):
        odd = sorted(found ^ set(listed))[0]
        raise InputError(f"{folder}: {odd} is {'missing' if odd in listed else 'not in ' + MANIFEST}; not loaded")
    for name, wanted in sorted(listed.items()):
        if sha256_file(folder / name) != (wanted.get("sha256") if isinstance(wanted, dict) else None):
            raise InputError(f"{folder / name}: has changed since it was registered (its SHA-256 differs); not loaded")


def _check_config(folder: Path) -> None:
    config = _json(folder / "config.json")
    for name in ("config.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            for key in _keys(_json(folder / name)):
                if key in _CODE:
                    raise InputError(f"{folder / name}: {key} {_CODE[key]}; not loaded")
    named = config.get("architectures")
    if not (isinstance(named, list) and len(named) == 1 and str(named[0]).endswith(_ARCHITECTURE)):
        raise InputError(f"{folder / 'config.json'}: architectures: {named!r}; one *{_ARCHITECTURE} is allowed")


def check_architecture(folder: Path, known: Mapping[str, str]) -> None:
    """Refuse a model whose class is not the installed transformers' own classifier of its `model_type`.

    Args:
        folder: that check_folder has passed.
        known: model type -> class, as transformers has them.

    Raises:
        InputError: names the class and the type.
    """
    config = _json(folder / "config.json")
    kind, (named,) = config.get("model_type"), config["architectures"]
    if named != known.get(str(kind)):
        raise InputError(
            f"{folder / 'config.json'}: {named} of model_type {kind!r} is no classifier of texts that is built in"
        )


def _check_mlmodel(path: Path, model: Path) -> None:
    import yaml

    try:
        flavors = yaml.safe_load(path.read_text(encoding="utf-8"))["flavors"]
        pyfunc = flavors["python_function"]
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        raise InputError(f"{path}: not the description of a PyFunc; not registered by tuneline") from None
    given = {key for key, value in pyfunc.items() if value is not None}
    if set(flavors) != {"python_function"} or pyfunc.get("loader_module") != LOADER or given - _FLAVOR:
        raise InputError(f"{path}: names code other than {LOADER}; not loaded")
    if pyfunc.get("data") != f"data/{model.name}":
        raise InputError(f"{path}: data: {pyfunc.get('data')!r}, and the model is in data/{model.name}; not loaded")


def _json(path: Path) -> dict[str, Any]:
    try:
        value = read_json(path)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise InputError(f"{path}: not a JSON object; not loaded")
    return value


def _keys(value: Any) -> Iterator[str]:
    """Every key at any depth, but for those that are a model's labels."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            if key != "label2id":
                yield from _keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _keys(inner)
