"""torchrun --nproc-per-node 2 -m tuneline.train DATA OUT CONFIG.json: the train step in several processes.

CONFIG.json holds {"model": {...}, "train": {...}}, the sections of a recipe.
"""

import json
import os
import sys
from pathlib import Path

from tuneline.artifacts import read_json
from tuneline.config import ModelConfig, TrainConfig, validate
from tuneline.errors import InputError
from tuneline.train.train import train


def main() -> int:
    """Run the step; 2 for bad input."""
    if len(sys.argv) != 4:
        print(__doc__, file=sys.stderr)
        return 2
    data, out, config = map(Path, sys.argv[1:])
    try:
        model, settings = _sections(config)
        if not (data / "manifest.json").is_file():
            raise InputError(f"{data}: no manifest.json; DATA is the folder that prepare writes")
        metrics = train(data, model, settings, out)
        if os.environ.get("RANK", "0") == "0":
            print(json.dumps(metrics))
    except InputError as error:
        print(f"tuneline: error: {error}", file=sys.stderr)
        return 2
    return 0


def _sections(path: Path) -> tuple[ModelConfig, TrainConfig]:
    try:
        tree = read_json(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable JSON file: {error}") from None
    strange = sorted(set(tree) - {"model", "train"}) if isinstance(tree, dict) else [type(tree).__name__]
    if strange:
        raise InputError(f"{path}: {strange[0]} found; allowed: an object of model and train")
    return validate(ModelConfig, tree.get("model", {}), "model"), validate(TrainConfig, tree.get("train", {}), "train")


if __name__ == "__main__":
    sys.exit(main())
