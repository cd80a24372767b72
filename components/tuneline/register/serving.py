"""What KServe's stock runtime has to be told so that it reads a text as the model does: a tag of the version."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tuneline.artifacts import Decision, read_json


def stock_arguments(model: Path) -> str:
    """Arguments of KServe's Hugging Face server, parted by blanks.

    Left to itself it cuts at the checkpoint's longest text, not where training cut, and makes every tokenizer lower its
    letters (huggingfaceserver's do_lower_case).

    Args:
        model: folder of TrainedModel.
    """
    given = ["--return_probabilities", f"--max_model_len={Decision.load(model).max_length}"]
    lowers = _lowers(read_json(model / "tokenizer.json").get("normalizer"))
    return " ".join(given if lowers else [*given, "--disable_lower_case"])


def _lowers(normalizer: Any) -> bool:
    """Whether a tokenizer's normalizer, or one in its sequence, makes capitals small."""
    if not isinstance(normalizer, dict):
        return False
    here = normalizer.get("type") == "Lowercase" or normalizer.get("lowercase") is True
    return here or any(map(_lowers, normalizer.get("normalizers", [])))
