"""The image that each step runs in, unless a cluster's profile names another; the runner on a laptop ignores it."""

from tuneline import __version__

PREPARE, TRAIN, EVALUATE, REGISTER, SWEEP = (
    f"tuneline/tuneline-{step}:{__version__}" for step in ("prepare", "train", "evaluate", "register", "sweep")
)
