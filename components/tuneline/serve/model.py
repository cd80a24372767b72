"""A trained model as what answers: texts in, a probability for each label out.

The evaluation step and every prediction go through this one class, so that what was evaluated is what predicts. MLflow
loads it by `loader_module`: the artifact holds data only, no code. `trust_remote_code` is never on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneline.artifacts import Decision
from tuneline.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

ALLOWED_FILES = {
    "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "vocab.txt", "vocab.json", "merges.txt", "tuneline.json",
}  # fmt: skip


class Classifier:
    """A fine-tuned model in eval mode.

    Args:
        folder: a TrainedModel folder.
        precision: fp32, or bf16, which is quicker where the hardware has it and rounds.

    Raises:
        InputError: a file is missing or does not belong there.
    """

    def __init__(self, folder: Path, precision: str = "fp32") -> None:
        import torch
        from tokenizers import Tokenizer
        from transformers import AutoModelForSequenceClassification
        from transformers.utils import logging as transformers_logging

        from tuneline.packing import classifier_for

        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()
        _check_files(folder)
        self.decision = Decision.load(folder)
        self.low = precision == "bf16"
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        network: Any = AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
        )
        self.network = classifier_for(network.to(self.device)).eval()
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        direction = {"head": "right", "tail": "left"}[self.decision.long_texts]
        self.tokenizer.enable_truncation(self.decision.max_length, direction=direction)

    @property
    def labels(self) -> list[str]:
        """Label names in the order of the probabilities' columns."""
        return self.decision.labels

    def predict_proba(
        self, texts: Sequence[str], batch_size: int = 32, on_batch: Callable[[int], None] | None = None
    ) -> np.ndarray:
        """Probabilities, fp32 [texts, labels]; `on_batch` is told how many texts are done."""
        ids = [encoding.ids for encoding in self.tokenizer.encode_batch(list(texts))]
        return self.predict_proba_ids(ids, batch_size, on_batch)

    def predict_proba_ids(
        self, rows: Sequence[Sequence[int]], batch_size: int = 32, on_batch: Callable[[int], None] | None = None
    ) -> np.ndarray:
        """The same from token ids; batches go by length, the longest first, the answer is in the order given."""
        import numpy as np
        import torch

        order = sorted(range(len(rows)), key=lambda index: len(rows[index]), reverse=True)
        probabilities = np.zeros((len(rows), len(self.labels)), dtype=np.float32)
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.low):
            for at in range(0, len(order), batch_size):
                batch = order[at : at + batch_size]
                logits = self.network([rows[index] for index in batch])
                probabilities[batch] = logits.softmax(1).cpu().numpy()
                if on_batch:
                    on_batch(at + len(batch))
        return probabilities


def _check_files(folder: Path) -> None:
    found = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tuneline.json"):
        if name not in found:
            raise InputError(f"{folder}: no {name}; not a model folder of tuneline")
    if strange := sorted(found - ALLOWED_FILES):
        raise InputError(f"{folder}: {strange[0]} does not belong in a model folder; not loaded")


class PyFunc:
    """What `mlflow.pyfunc.load_model` gives: a list, column or one-column frame of texts in, a frame out."""

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """A frame of label, score, and one column `p(LABEL)` a label, a row a text."""
        import pandas as pd

        del params
        texts = _texts(model_input)
        probabilities = self.classifier.predict_proba(texts)
        labels = self.classifier.labels
        frame = pd.DataFrame(probabilities, columns=pd.Index([f"p({label})" for label in labels]))
        frame.insert(0, "score", probabilities.max(1))
        frame.insert(0, "label", [labels[index] for index in probabilities.argmax(1)])
        return frame


def _texts(model_input: Any) -> list[str]:
    import numpy as np
    import pandas as pd

    if isinstance(model_input, pd.DataFrame):
        if model_input.shape[1] != 1:
            raise InputError(f"{model_input.shape[1]} columns given; one column of texts is needed")
        model_input = model_input.iloc[:, 0]
    if isinstance(model_input, pd.Series | np.ndarray):
        model_input = model_input.ravel().tolist() if isinstance(model_input, np.ndarray) else model_input.tolist()
    if isinstance(model_input, str):
        model_input = [model_input]
    for number, text in enumerate(model_input, start=1):
        if not isinstance(text, str):
            raise InputError(f"item {number}: {type(text).__name__} given; a text is needed")
    return list(model_input)


def _load_pyfunc(path: str) -> PyFunc:
    """The hook that MLflow calls (mlflow.pyfunc, loader_module)."""
    return PyFunc(Classifier(Path(path)))
