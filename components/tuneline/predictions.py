"""A model's answers on a test set, one entry a row: what evaluate writes, and register and compare pair up.

In numpy's own format and without pickle, because the image that registers reads it with numpy alone. No text is in it:
a row is known by the hash of its text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tuneline.errors import InputError

if TYPE_CHECKING:
    import numpy as np

FILE = "predictions.npz"
TRAINING_FILE = "training_keys.npy"
CHAMPION = "champion"
"""The folder of an Evaluation that holds these files of the champion on the same rows."""
NONE = -1
"""The answer of a model that abstained."""
COLUMNS = ("keys", "labels", "answers", "confidence", "chance", "baseline")


@dataclass(frozen=True, eq=False)
class Predictions:
    """The answers on the rows of one test set, in its order.

    Attributes:
        names: label names.
        keys: uint64 [rows], see `keys`.
        labels: int32 [rows], indices into names.
        answers: int32 [rows], what the decision answered; NONE where it abstained.
        confidence: float32 [rows], the probability of the most probable class.
        chance: float32 [rows], the probability of the true class.
        baseline: int32 [rows], the linear baseline's answers.
        slices: bool [rows] for each named part of the rows.
        facts: what they are of: test_sha256, weights_sha256, environment.
    """

    names: list[str]
    keys: np.ndarray
    labels: np.ndarray
    answers: np.ndarray
    confidence: np.ndarray
    chance: np.ndarray
    baseline: np.ndarray
    slices: dict[str, np.ndarray] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write them into a folder of an Evaluation; the same answers give the same bytes."""
        import numpy as np

        about = json.dumps({"names": self.names, "slices": list(self.slices), "facts": self.facts}).encode()
        parts = np.packbits(
            np.array(list(self.slices.values()), bool).reshape(len(self.slices), len(self.keys)), axis=1
        )
        np.savez_compressed(
            folder / FILE, about=np.frombuffer(about, np.uint8), slices=parts,
            **{name: getattr(self, name) for name in COLUMNS},
        )  # fmt: skip

    @classmethod
    def load(cls, folder: Path) -> Predictions:
        """Read them.

        Raises:
            InputError: missing, or not written by `save`.
        """
        import numpy as np

        path = folder / FILE
        try:
            with np.load(path, allow_pickle=False) as stored:
                about = json.loads(stored["about"].tobytes())
                columns = {name: stored[name] for name in COLUMNS}
                parts = np.unpackbits(stored["slices"], axis=1, count=len(columns["keys"])).astype(bool)
            slices = dict(zip(about["slices"], parts, strict=True))
            return cls(about["names"], **columns, slices=slices, facts=about["facts"])
        except FileNotFoundError:
            raise InputError(f"{path}: not there; evaluate the model again with this version of tuneline") from None
        except Exception as error:  # zipfile, zlib, json and numpy each have their own for a damaged file
            raise InputError(f"{path}: not readable ({type(error).__name__}); evaluate the model again") from None

    def answers_of(self, other: Predictions) -> np.ndarray:
        """The other model's answers, int32 [rows] in these names; NONE where its label is unknown here.

        Raises:
            InputError: they are not about the same rows with the same labels.
        """
        import numpy as np

        if len(self.keys) != len(other.keys) or not np.array_equal(self.keys, other.keys):
            raise InputError(
                f"predictions on {len(self.keys)} and {len(other.keys)} rows that are not the same test set cannot be "
                f"compared; evaluate both models on one"
            )
        place = {name: index for index, name in enumerate(self.names)}
        here = np.array([*(place.get(name, NONE) for name in other.names), NONE], np.int32)
        if not np.array_equal(self.labels, here[other.labels]):
            raise InputError("the test rows of the two models have different labels; evaluate both on one test set")
        return here[other.answers]


def keys(texts: Sequence[str], pairs: Sequence[str] | None = None) -> np.ndarray:
    """The hash of each row's text and second text, uint64 [rows]: BLAKE2b, 64 bits."""
    import numpy as np

    second = pairs if pairs is not None else [""] * len(texts)
    joined = (f"{len(text)}:{text}{pair}" for text, pair in zip(texts, second, strict=True))
    digests = b"".join(hashlib.blake2b(row.encode("utf-8", "surrogatepass"), digest_size=8).digest() for row in joined)
    return np.frombuffer(digests, "<u8").astype(np.uint64)


def save_training_keys(folder: Path, training: np.ndarray) -> None:
    """Write the keys of the rows that a model was trained on, sorted and each once."""
    import numpy as np

    np.save(folder / TRAINING_FILE, np.unique(training), allow_pickle=False)


def load_training_keys(folder: Path) -> np.ndarray:
    """Read them, uint64 sorted.

    Raises:
        InputError: missing or damaged.
    """
    import numpy as np

    path = folder / TRAINING_FILE
    try:
        return np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"{path}: not there; evaluate the model again with this version of tuneline") from None
    except (ValueError, EOFError, OSError):
        raise InputError(f"{path}: not readable; evaluate the model again") from None


def contaminated(test: np.ndarray, training: np.ndarray) -> int:
    """How many test rows stand in the training rows, both given by their keys."""
    import numpy as np

    return int(np.isin(test, training).sum())
