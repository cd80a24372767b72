"""Turns texts into token ids with the checkpoint's own fast tokenizer (the Rust library alone, no transformers)."""

from __future__ import annotations

import shutil
from pathlib import Path

from tuneline.config import ModelConfig
from tuneline.errors import InputError
from tuneline.progress import Progress

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
)
BATCH = 1000


def encode(checkpoint: Path, texts: list[str], model: ModelConfig, progress: Progress) -> tuple[list[list[int]], int]:
    """Token ids of each text, special tokens included, and how many texts were cut.

    Args:
        checkpoint: folder with tokenizer.json.
        texts: the texts.
        model: longest row in tokens, and the side on which longer ones are cut.
        progress: told after each thousand texts.

    Raises:
        InputError: the checkpoint has no fast tokenizer.
    """
    from tokenizers import Tokenizer

    file = checkpoint / "tokenizer.json"
    if not file.is_file():
        raise InputError(
            f"{checkpoint}: no tokenizer.json; save it once with transformers' "
            f"AutoTokenizer.from_pretrained(...).save_pretrained(...)"
        )
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_padding()
    tokenizer.enable_truncation(model.max_length, direction={"head": "right", "tail": "left"}[model.long_texts])
    rows: list[list[int]] = []
    cut = 0
    for start in range(0, len(texts), BATCH):
        for encoding in tokenizer.encode_batch(texts[start : start + BATCH]):
            rows.append(encoding.ids)
            cut += bool(encoding.overflowing)
        progress.update(len(rows))
    return rows, cut


def copy_tokenizer(checkpoint: Path, folder: Path) -> None:
    """Put the tokenizer's files beside the data, so that later steps need no hub."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER_FILES:
        if (checkpoint / name).is_file():
            shutil.copyfile(checkpoint / name, folder / name)
