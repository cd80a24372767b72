"""The checkpoint's own tokenizer (the Rust library alone, no transformers), and what it puts around texts."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneline.artifacts import write_json
from tuneline.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from tokenizers import Encoding, Tokenizer

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
)


def copy_tokenizer(checkpoint: Path, folder: Path) -> None:
    """Put the tokenizer's files beside the data, so that later steps need no hub."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER_FILES:
        if (checkpoint / name).is_file():
            shutil.copyfile(checkpoint / name, folder / name)


def load(folder: Path) -> tuple[Tokenizer, int]:
    """The tokenizer, set to neither pad nor cut nor read special tokens in texts, and its id of the unknown, or -1."""
    from tokenizers import Tokenizer

    file = folder / "tokenizer.json"
    if not file.is_file():
        raise InputError(
            f"{folder}: no tokenizer.json; save it once with transformers' "
            f"AutoTokenizer.from_pretrained(...).save_pretrained(...)"
        )
    try:
        text = file.read_text(encoding="utf-8")
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # the library raises Exception itself
        raise InputError(f"{file}: not a tokenizer: {error}") from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.encode_special_tokens = True
    model = json.loads(text)["model"]
    found = model.get("unk_id")
    if found is None and model.get("unk_token"):
        found = tokenizer.token_to_id(model["unk_token"])
    return tokenizer, -1 if found is None else found


def specials(tokenizer: Tokenizer, unknown: int) -> np.ndarray:
    """The special tokens that no text may hold.

    The library no longer reads them in a text, but vocabularies of words and of Unigram pieces hold them too.
    """
    import numpy as np

    added = tokenizer.get_added_tokens_decoder()
    found = [number for number, token in added.items() if token.special and number != unknown]
    return np.array(found if unknown >= 0 else [], np.int32)


def separator(folder: Path, tokenizer: Tokenizer) -> int:
    """The token that ends a text, for tokenizers that put none around texts (GPT-2); -1 where there is none."""
    found = _named(folder, tokenizer, "sep_token", "eos_token")
    special = [number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special]
    return min(special, default=-1) if found is None else found


def padding(folder: Path) -> int | None:
    """The token that the tokenizer's settings name for padding; None where they name none (GPT-2).

    Raises:
        InputError: no tokenizer that can be read.
    """
    return _named(folder, load(folder)[0], "pad_token")


def name_padding(folder: Path, number: int) -> None:
    """Have the tokenizer's settings name this token for padding, where they name none.

    A model pads with the token that its config.json names, and transformers refuses to pad with a tokenizer that names
    none: a server that takes texts together could not answer them.
    """
    tokenizer, _ = load(folder)
    if _named(folder, tokenizer, "pad_token") is None and (token := tokenizer.id_to_token(number)) is not None:
        file = folder / "tokenizer_config.json"
        settings = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        write_json(file, settings | {"pad_token": token})


def _named(folder: Path, tokenizer: Tokenizer, *keys: str) -> int | None:
    """The first token that the tokenizer's settings name under one of these keys."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if not (folder / name).is_file():
            continue
        settings = json.loads((folder / name).read_text(encoding="utf-8"))
        for key in keys:
            found: Any = settings.get(key)
            token = found.get("content") if isinstance(found, dict) else found
            if isinstance(token, str) and (number := tokenizer.token_to_id(token)) is not None:
                return number
    return None


@dataclass(frozen=True)
class Frame:
    """The special tokens before, between and after texts."""

    before: list[int]
    between: list[int]
    after: list[int]

    @property
    def size(self) -> int:
        """How many they are."""
        return len(self.before) + len(self.between) + len(self.after)


def frame_of(tokenizer: Tokenizer, pair: bool = False) -> Frame:
    """What the tokenizer puts around a text, or around two, as it does to a short one."""
    encoding: Encoding = tokenizer.encode("a", "a" if pair else None)
    ids, special = encoding.ids, encoding.special_tokens_mask
    text = [at for at, marked in enumerate(special) if not marked]
    if not text:
        raise InputError("model.name: the checkpoint's tokenizer.json makes no token of the letter a; give another")
    half = len(text) // 2 if pair else len(text)
    first, second = text[:half], text[half:]
    between = ids[first[-1] + 1 : second[0]] if pair else []
    return Frame(ids[: text[0]], between, ids[text[-1] + 1 :])
