"""What crosses between steps: folders with fixed file names, a manifest each, and how they are written and read.

PreparedData   manifest.json, {train,validation,test}.arrow, tokenizer/; audit.html, audit.json, label_errors.csv
TrainedModel   a flat Hugging Face folder: config.json, model.safetensors, tokenizer files; tuneline.json beside them
Evaluation     metrics.json, predictions.parquet, confusion_matrix.png, report.html
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneline.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

STEPS = ("prepare", "train", "evaluate", "register")
"""Of the pipeline, in their order."""
SPLITS = ("train", "validation", "test")
SLICE = "slice."
"""What a split's columns begin with whose values part the rows into slices (data.slice_columns)."""


@dataclass(frozen=True)
class PreparedData:
    """The manifest of prepared data.

    Attributes:
        labels: label names; a row's `label` column is an index into them.
        rows: rows per split.
        sha256: full-content SHA-256 per split, over texts and labels in order, and `all` over the splits'.
        unordered_sha256: the same over the rows in any order.
        notes: what the step did to the data, one sentence each.
        pairs: whether a row has a second text.
        clean: what was taken out of or repaired in the texts (clean.FIXES).
        max_length: tokens that the texts were cut at.
        long_texts: what was kept of longer texts: head, tail, head_tail or windows.
        truncated: rows per split that were cut.
        model: the checkpoint whose tokenizer was used.
        sources: the URI of each split; empty where it was split off the training data.
        versions: what each source says it held (revision, version ids, hashes of files); empty as `sources`, or where
            it says nothing.
        tokenizer_sha256: hash of tokenizer.json.
        seed: seed of splits and samples.
        class_counts: rows of each label per split.
        class_weights: factor of each label that balances the training rows, mean 1 over the rows.
        sampling: how often training would draw each label; see prepare.imbalance.
    """

    labels: list[str]
    rows: dict[str, int]
    sha256: dict[str, str]
    max_length: int
    long_texts: str
    truncated: dict[str, int]
    model: str
    sources: dict[str, str]
    seed: int
    notes: list[str] = field(default_factory=list)
    unordered_sha256: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    tokenizer_sha256: str = ""
    class_counts: dict[str, list[int]] = field(default_factory=dict)
    class_weights: list[float] = field(default_factory=list)
    sampling: dict[str, Any] = field(default_factory=dict)
    pairs: bool = False
    clean: list[str] = field(default_factory=list)

    def save(self, folder: Path) -> None:
        """Write the manifest into the folder."""
        write_json(folder / "manifest.json", asdict(self))

    @classmethod
    def load(cls, folder: Path) -> PreparedData:
        """Read the manifest of a folder."""
        return cls(**read_json(folder / "manifest.json"))


@dataclass(frozen=True)
class Decision:
    """How logits become an answer; stands beside the weights as tuneline.json.

    Attributes:
        labels: label names in the order of the logits.
        max_length: tokens that a text is cut at, special tokens included.
        long_texts: what is kept of longer texts: head, tail, head_tail or windows.
        base_model: the checkpoint that was fine-tuned.
        data_sha256: the training data's hash.
        pairs: whether it answers pairs of texts.
        clean: what is taken out of or repaired in a text before it is read (clean.FIXES).
        temperature: by which the last layer's weights were divided, so that its probabilities are calibrated.
        thresholds: of each label, see calibration.decide; empty where the most probable label is answered.
        costs: true label -> answered label -> what it costs, see calibration.cost_matrix; empty where all errors count
            alike.
        abstain_below: probability of the most probable label below which abstain_label is answered; 0 never abstains.
        abstain_label: one of the labels, or empty: no label is answered then.
    """

    labels: list[str]
    max_length: int
    long_texts: str
    base_model: str
    data_sha256: str
    pairs: bool = False
    clean: list[str] = field(default_factory=list)
    temperature: float = 1.0
    thresholds: dict[str, float] = field(default_factory=dict)
    costs: dict[str, dict[str, float]] = field(default_factory=dict)
    abstain_below: float = 0.0
    abstain_label: str = ""

    @property
    def plain(self) -> bool:
        """Whether the most probable label is always the answer."""
        return not (self.thresholds or self.costs or self.abstain_below)

    def beyond_stock(self) -> list[str]:
        """What a server that only takes the largest logit of a text's head would leave out; for people."""
        return [
            told
            for told, asked in (
                ("thresholds", self.thresholds),
                ("costs of errors", self.costs),
                ("abstention", self.abstain_below),
                (f"long texts by {self.long_texts}", self.long_texts != "head"),
                ("pairs of texts", self.pairs),
                ("cleaning of texts", self.clean),
            )
            if asked
        ]

    def save(self, folder: Path) -> None:
        """Write the decision into a model folder."""
        write_json(folder / "tuneline.json", asdict(self))

    @classmethod
    def load(cls, folder: Path) -> Decision:
        """Read the decision of a model folder.

        Raises:
            InputError: it holds what this version does not know, and would answer without.
        """
        stored = read_json(folder / "tuneline.json")
        if strange := sorted(set(stored) - {known.name for known in fields(cls)}):
            raise InputError(
                f"{folder / 'tuneline.json'}: {strange[0]} is not known to this tuneline; install a newer one"
            )
        return cls(**stored)


def read_split(folder: Path, split: str) -> pa.Table:
    """Memory-map a split: columns row (int64, place in its source), text, label (int32), input_ids (list<int32>), cut.

    cut (bool) says whether the text was longer than what of it stands in input_ids; data of earlier versions lacks it.

    Pairs have the columns pair (the second text) and pair_at (int32, its first token); long_texts=windows the column
    windows (list<int32>: tokens of each of a text's windows, which follow each other in input_ids). The test split, and
    those of the same source, have slice.NAME (text) for each of data.slice_columns.
    """
    import pyarrow as pa

    with pa.memory_map(str(folder / f"{split}.arrow")) as source:
        return pa.ipc.open_file(source).read_all()


@contextmanager
def split_writer(folder: Path, split: str, schema: pa.Schema) -> Iterator[pa.ipc.RecordBatchFileWriter]:
    """An Arrow file that read_split can map, written batch by batch."""
    import pyarrow as pa

    with pa.OSFile(str(folder / f"{split}.arrow"), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        yield writer


def address(**parts: Any) -> str:
    """A short name for what decides a result: a hash of it, spelled as JSON."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def source_hash(*places: Path, also: str = "") -> str:
    """A hash of code that decides a result: of files, and of all Python files of a folder and below.

    Args:
        places: files and folders.
        also: a pattern of other files of the folders, such as *.j2.
    """
    digest = hashlib.sha256()
    for place in places:
        below = [*place.rglob("*.py"), *(place.rglob(also) if also else ())]
        for path in sorted(below) if place.is_dir() else [place]:
            digest.update(path.read_bytes())
    return digest.hexdigest()


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file, which is made and stays; another process that holds it is waited for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON, keys in their own order, with a final newline."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))
