"""torchrun --nproc-per-node 2 -m tuneline.train DATA OUT CONFIG.json: the train step in several processes.

CONFIG.json holds {"model": {...}, "train": {...}}, the sections of a recipe.
"""

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
        sections = read_json(config)
        model = validate(ModelConfig, sections.get("model", {}), "model")
        settings = validate(TrainConfig, sections.get("train", {}), "train")
        train(data, model, settings, out)
    except InputError as error:
        print(f"tuneline: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
