"""torchrun --nproc-per-node 2 -m tuneline.train DATA OUT CONFIG.json: the train step in several processes.

CONFIG.json holds {"model": {...}, "train": {...}}, the sections of a recipe. A step that starts the processes adds
"record", the file that tells it their numbers, and "lease", the file that it renews while it waits for them. Without a
record, the result is printed as one JSON object.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from tuneline.artifacts import read_json
from tuneline.config import ModelConfig, TrainConfig
from tuneline.errors import InputError
from tuneline.progress import ERROR_MARK
from tuneline.recipe import validate
from tuneline.threads import within_quota
from tuneline.train.record import FileRecorder
from tuneline.train.train import train


def main() -> int:
    """Run the step; 2 for bad input."""
    if len(sys.argv) != 4:
        print(__doc__, file=sys.stderr)
        return 2
    data, out, config = map(Path, sys.argv[1:])
    try:
        tree = _read(config)
        model = validate(ModelConfig, tree.get("model", {}), "model")
        settings = validate(TrainConfig, tree.get("train", {}), "train")
        if not (data / "manifest.json").is_file():
            raise InputError(f"{data}: no manifest.json; DATA is the folder that prepare writes")
        _train(data, model, settings, out, tree)
    except InputError as error:
        print(f"{ERROR_MARK}{error}", file=sys.stderr)
        return 2
    return 0


def _train(data: Path, model: ModelConfig, settings: TrainConfig, out: Path, tree: dict[str, Any]) -> None:
    within_quota()
    first = os.environ.get("RANK", "0") == "0"
    record, lease = (Path(tree[key]) if tree.get(key) else None for key in ("record", "lease"))
    recorder = FileRecorder(record, lease) if record and first else None
    metrics = train(data, model, settings, out, recorder)
    if recorder:
        recorder.result(metrics, out)
    elif first:
        print(json.dumps(metrics))


def _read(path: Path) -> dict[str, Any]:
    try:
        tree = read_json(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable JSON file: {error}") from None
    known = {"model", "train", "record", "lease"}
    strange = sorted(set(tree) - known) if isinstance(tree, dict) else [type(tree).__name__]
    if strange:
        raise InputError(f"{path}: {strange[0]} found; allowed: an object of model, train, record and lease")
    return tree


if __name__ == "__main__":
    sys.exit(main())
