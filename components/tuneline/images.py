"""The image that each step runs in, named when a pipeline is built; the runner on a laptop ignores it."""

import os

from tuneline import __version__


def _image(step: str) -> str:
    prefix = os.environ.get("TUNELINE_IMAGE_PREFIX", "tuneline/python")
    return f"{prefix}-{step}:{__version__}"


PREPARE, TRAIN, EVALUATE, REGISTER = map(_image, ("prepare", "train", "evaluate", "register"))
