"""Tiny checkpoints of the families that people fine-tune: random weights, saved as the family's own language model is,
and a tokenizer of the family's kind, trained on the texts of the test."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM

POSITIONS = 66
Texts = Sequence[str]


def wordpiece(texts: Texts) -> Tokenizer:
    """BERT's: [CLS] A [SEP] B [SEP], letters made small."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=specials, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return _framed(tokenizer, "[CLS]", "[SEP]")


def roberta_bpe(texts: Texts) -> Tokenizer:
    """RoBERTa's: byte-level BPE, <s> A </s></s> B </s>."""
    tokenizer = _byte_bpe(texts, ["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return tokenizer


def gpt2_bpe(texts: Texts) -> Tokenizer:
    """GPT-2's: byte-level BPE, nothing around a text, and no token to pad with."""
    tokenizer = _byte_bpe(texts, ["<|endoftext|>"])
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer


def modernbert_bpe(texts: Texts) -> Tokenizer:
    """ModernBERT's: byte-level BPE in BERT's frame."""
    tokenizer = _byte_bpe(texts, ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    return _framed(tokenizer, "[CLS]", "[SEP]")


def unigram(texts: Texts) -> Tokenizer:
    """DeBERTa's since its second version: pieces of a unigram model, [CLS] A [SEP] B [SEP]."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Strip()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    specials = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
    trainer = trainers.UnigramTrainer(
        vocab_size=120, special_tokens=specials, unk_token="[UNK]", show_progress=False
    )  # fmt: skip
    tokenizer.train_from_iterator(texts, trainer)
    return _framed(tokenizer, "[CLS]", "[SEP]")


def _byte_bpe(texts: Texts, specials: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=380, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )  # fmt: skip
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _framed(tokenizer: Tokenizer, before: str, after: str) -> Tokenizer:
    ids = [(token, tokenizer.token_to_id(token)) for token in (before, after)]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{before} $A {after}", pair=f"{before} $A {after} $B:1 {after}:1", special_tokens=ids
    )
    return tokenizer


@dataclass(frozen=True)
class Family:
    """A family of checkpoints.

    Attributes:
        model_type: as config.json has it.
        tokenizer: makes its kind of tokenizer.
        settings: of its tokenizer_config.json, as published checkpoints have them.
        packs: whether its rows are packed.
        shape: of the network, in the family's own words.
    """

    model_type: str
    tokenizer: Callable[[Texts], Tokenizer]
    settings: dict[str, Any]
    packs: bool = True
    shape: dict[str, Any] = field(default_factory=dict)


SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
         "max_position_embeddings": POSITIONS}  # fmt: skip
BERT_SPECIALS = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]",
                 "mask_token": "[MASK]"}  # fmt: skip
END = "<|endoftext|>"
FAMILIES = {
    family.model_type: family for family in (
        Family("bert", wordpiece, {"tokenizer_class": "BertTokenizer", "do_lower_case": True, **BERT_SPECIALS},
               shape=SIZES),
        Family("distilbert", wordpiece,
               {"tokenizer_class": "DistilBertTokenizer", "do_lower_case": True, **BERT_SPECIALS},
               shape={"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, "max_position_embeddings": POSITIONS}),
        Family("roberta", roberta_bpe, {"tokenizer_class": "RobertaTokenizer", "bos_token": "<s>", "eos_token": "</s>",
                                        "sep_token": "</s>", "cls_token": "<s>", "unk_token": "<unk>",
                                        "pad_token": "<pad>", "mask_token": "<mask>"},
               shape=SIZES | {"type_vocab_size": 1}),
        Family("gpt2", gpt2_bpe, {"tokenizer_class": "GPT2Tokenizer", "bos_token": END, "eos_token": END,
                                  "unk_token": END},
               shape={"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": POSITIONS}),
        Family("modernbert", modernbert_bpe, {"tokenizer_class": "PreTrainedTokenizerFast", **BERT_SPECIALS},
               shape=SIZES | {"local_attention": 8, "global_attn_every_n_layers": 2}),
        Family("deberta-v2", unigram,
               {"tokenizer_class": "DebertaV2Tokenizer", "do_lower_case": False, **BERT_SPECIALS}, packs=False,
               shape=SIZES | {"type_vocab_size": 0, "relative_attention": True, "position_buckets": 16,
                              "norm_rel_ebd": "layer_norm", "share_att_key": True, "pos_att_type": ["p2c", "c2p"],
                              "position_biased_input": False, "max_relative_positions": -1}),
    )
}  # fmt: skip


def checkpoint(name: str, texts: Texts, folder: Path) -> Path:
    """A checkpoint of the family as a Hugging Face folder: its language model's weights and its tokenizer's files.

    As in those that are published, config.json names the tokens that the tokenizer has; GPT-2's names none to pad with.
    """
    family = FAMILIES[name]
    tokenizer = family.tokenizer(texts)
    names = {"pad": ("[PAD]", "<pad>"), "bos": ("<s>", END), "eos": ("</s>", END), "cls": ("[CLS]", "<s>"),
             "sep": ("[SEP]", "</s>")}  # fmt: skip
    tokens = {
        f"{kind}_token_id": next((at for one in those if (at := tokenizer.token_to_id(one)) is not None), None)
        for kind, those in names.items()
    }
    config = AutoConfig.for_model(name, vocab_size=tokenizer.get_vocab_size(), **family.shape, **tokens)
    torch.manual_seed(0)
    automatic = AutoModelForCausalLM if name == "gpt2" else AutoModelForMaskedLM
    automatic.from_config(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(family.settings | {"model_max_length": 64}))
    return folder
