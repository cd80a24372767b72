"""Small tokenizers of the kinds that families of checkpoints have, made on the spot."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from tests.conftest import WORDS

TEXT = [" ".join(WORDS), "a fine film, was it not? the plot: dull; the actors: great!"] * 4


def bert() -> Tokenizer:
    """Words in lower case, [CLS] A [SEP] B [SEP]."""
    vocabulary = {word: index for index, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


def roberta() -> Tokenizer:
    """Byte-level BPE, <s> A </s></s> B </s>."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(TEXT, _bytes(["<s>", "<pad>", "</s>", "<unk>"]))
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return tokenizer


def gpt2() -> Tokenizer:
    """Byte-level BPE, nothing around a text and nothing between two."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.train_from_iterator(TEXT, _bytes(["<|endoftext|>"]))
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    return tokenizer


def _bytes(specials: list[str]) -> trainers.BpeTrainer:
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return trainers.BpeTrainer(
        vocab_size=320, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )  # fmt: skip


def xlm_roberta() -> Tokenizer:
    """Unigram pieces, whose vocabulary holds the special tokens too, <s> A </s></s> B </s>."""
    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    letters = sorted({letter for text in TEXT for letter in text.replace(" ", "▁")} | set("<>/"))
    pieces = [(piece, 0.0) for piece in specials] + [(letter, -9.0) for letter in letters]
    pieces += [(f"▁{word}", -5.0) for word in WORDS if len(word) > 1]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.add_special_tokens(specials)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer


KINDS = {"bert": bert, "roberta": roberta, "gpt2": gpt2, "xlm-roberta": xlm_roberta}


def save(kind: str, folder: Path) -> Path:
    """A folder with the tokenizer's files."""
    folder.mkdir(parents=True, exist_ok=True)
    KINDS[kind]().save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 64}))
    return folder
