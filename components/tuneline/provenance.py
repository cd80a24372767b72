"""What a run was made by: versions, platform, commit, and every installed distribution."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from tuneline import __version__

IMAGE = "TUNELINE_IMAGE"
"""Environment variable: the image that a step runs in, best by digest; a cluster's profile sets it."""
_PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "datasets",
    "mlflow",
    "mlflow-skinny",
    "kfp",
    "scikit-learn",
    "numpy",
)


def environment() -> dict[str, str]:
    """Versions, platform and git commit, as tags."""
    tags = {"tuneline.version": __version__, "tuneline.python": platform.python_version()}
    tags |= {f"tuneline.version.{name}": version for name in _PACKAGES if (version := _version(name))}
    if commit := git_commit():
        tags["mlflow.source.git.commit"] = commit
    if image := os.environ.get(IMAGE):
        tags["tuneline.image"] = image
    tags["mlflow.source.name"] = Path(sys.argv[0]).name
    return tags


def installed() -> list[str]:
    """Every installed distribution as NAME==VERSION, sorted."""
    return sorted({f"{found.name}=={found.version}" for found in metadata.distributions()}, key=str.lower)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def git_commit() -> str | None:
    """The commit of the working directory, or what the image was built from (TUNELINE_COMMIT)."""
    if commit := os.environ.get("TUNELINE_COMMIT"):
        return commit
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
