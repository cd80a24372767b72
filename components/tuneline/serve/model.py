"""A trained model as what answers: texts in, a probability for each label out.

The evaluation step and every prediction go through this one class, so that what was evaluated is what predicts. MLflow
loads it by `loader_module`: the artifact holds data only, no code. `trust_remote_code` is never on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneline import calibration
from tuneline.artifacts import Decision
from tuneline.clean import clean
from tuneline.errors import InputError
from tuneline.inputs import Inputs, of_tokens
from tuneline.safety import check_architecture, check_folder, check_registered
from tuneline.tokens import Encoder

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


class Classifier:
    """A fine-tuned model in eval mode.

    Args:
        folder: a TrainedModel folder.
        precision: fp32, or bf16, which is quicker where the hardware has it and rounds.

    Raises:
        InputError: a file is missing, does not belong there, or is not the one that was registered.
    """

    def __init__(self, folder: Path, precision: str = "fp32") -> None:
        import torch
        from transformers import AutoModelForSequenceClassification
        from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
        from transformers.utils import logging as transformers_logging

        from tuneline.packing import classifier_for

        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()
        check_folder(folder)
        check_architecture(folder, MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES)
        self.decision = Decision.load(folder)
        self.low = precision == "bf16"
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        network: Any = AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
        )
        self.network = classifier_for(network.to(self.device)).eval()
        self.encoder = Encoder(folder, self.decision.max_length, self.decision.long_texts)

    @property
    def labels(self) -> list[str]:
        """Label names in the order of the probabilities' columns."""
        return self.decision.labels

    def answers(self, probabilities: np.ndarray) -> np.ndarray:
        """What the model's decision makes of probabilities: indices into `labels`, predictions.NONE for no label."""
        return calibration.answers(self.decision, probabilities)

    def told(self, probabilities: np.ndarray) -> tuple[list[str], list[float]]:
        """Answers for people: labels, empty where the model abstains without one, and scores.

        A score is the probability of the label, and where there is none that of the most probable one.
        """
        import numpy as np

        found = self.answers(probabilities)
        chances = probabilities[np.arange(len(found)), np.where(found < 0, probabilities.argmax(1), found)]
        return [self.labels[index] if index >= 0 else "" for index in found.tolist()], chances.tolist()

    def predict_proba(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        *,
        batch_size: int = 32,
        on_batch: Callable[[int], None] | None = None,
    ) -> np.ndarray:
        """Probabilities, fp32 [texts, labels].

        Args:
            texts: what is answered.
            pairs: the second text of each, for a model that was trained on pairs.
            batch_size: rows in one pass of the network.
            on_batch: told how many rows are done; a text is one, or as many as it has windows.

        Raises:
            InputError: second texts are missing, or not for this model.
        """
        return self.predict_proba_inputs(self.inputs_of(texts, pairs), batch_size, on_batch)

    def inputs_of(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> Inputs:
        """Texts as predict_proba reads them: cleaned and tokenized.

        Raises:
            InputError: second texts are missing, or not for this model.
        """
        self._check_pairs(pairs is not None)
        texts, pairs = self._cleaned(texts), None if pairs is None else self._cleaned(pairs)
        return of_tokens(self.encoder.encode(texts, pairs))

    def predict_proba_inputs(
        self, inputs: Inputs, batch_size: int = 32, on_batch: Callable[[int], None] | None = None
    ) -> np.ndarray:
        """The same from tokenized texts; batches go by length, the longest first, the answer is in the order given."""
        import numpy as np
        import torch

        rows, pair_at = inputs.rows, inputs.pair_at
        order = sorted(range(len(rows)), key=lambda index: len(rows[index]), reverse=True)
        probabilities = np.zeros((len(rows), len(self.labels)), dtype=np.float32)
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.low):
            for at in range(0, len(order), batch_size):
                batch = order[at : at + batch_size]
                seconds = [pair_at[index] for index in batch] if pair_at else None
                logits = self.network([rows[index] for index in batch], seconds)
                probabilities[batch] = logits.softmax(1).cpu().numpy()
                if on_batch:
                    on_batch(at + len(batch))
        return inputs.mean(probabilities)

    def _check_pairs(self, given: bool) -> None:
        if self.decision.pairs and not given:
            raise InputError(
                "the model answers pairs of texts, and single texts were given; name the column of the second texts, "
                "as with tuneline predict --pair-column"
            )
        if given and not self.decision.pairs:
            raise InputError("the model answers single texts, and pairs were given; give one column of texts")

    def _cleaned(self, texts: Sequence[str]) -> Sequence[str]:
        """The texts with the fixes made that were made in what the model was trained on."""
        fixes = self.decision.clean
        return [clean(text, fixes) for text in texts] if fixes else texts


class PyFunc:
    """What `mlflow.pyfunc.load_model` gives: texts in (a list, a column, a one-column frame), a frame out.

    A model of pairs takes a frame of two columns, `text` and `pair` or any two in this order, or a list of pairs.
    """

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """A frame of label, score, and one column `p(LABEL)` a label, a row a text; see Classifier.told."""
        import numpy as np
        import pandas as pd

        del params
        pairs = self.classifier.decision.pairs
        columns = _columns(model_input, 2 if pairs else 1)
        probabilities = self.classifier.predict_proba(*columns)
        labels, scores = self.classifier.told(probabilities)
        frame = pd.DataFrame(probabilities, columns=pd.Index([f"p({label})" for label in self.classifier.labels]))
        frame.insert(0, "score", np.array(scores, np.float32))
        frame.insert(0, "label", np.array(labels, object))
        return frame


def _columns(model_input: Any, count: int) -> list[list[str]]:
    """The one or two columns of texts, out of any form that people and MLflow hand over."""
    import numpy as np
    import pandas as pd

    if isinstance(model_input, pd.DataFrame):
        if count == 2 and {"text", "pair"} <= set(model_input.columns):
            model_input = model_input[["text", "pair"]]
        if model_input.shape[1] != count:
            wanted = "one column of texts is" if count == 1 else "two columns of texts, text and pair, are"
            raise InputError(f"{model_input.shape[1]} columns given; {wanted} needed")
        columns = [model_input.iloc[:, number].tolist() for number in range(count)]
    elif count == 1:
        if isinstance(model_input, pd.Series | np.ndarray):
            model_input = model_input.ravel().tolist() if isinstance(model_input, np.ndarray) else model_input.tolist()
        columns = [[model_input] if isinstance(model_input, str) else list(model_input)]
    else:
        columns = _unzipped(model_input)
    for column in columns:
        _check_texts(column)
    return columns


def _unzipped(model_input: Any) -> list[list[Any]]:
    rows = [list(row) if not isinstance(row, str) and isinstance(row, Iterable) else [row] for row in model_input]
    for number, row in enumerate(rows, start=1):
        if len(row) != 2:
            raise InputError(f"item {number}: one text given; the model answers pairs of texts, so two are needed")
    return [[row[number] for row in rows] for number in range(2)]


def _check_texts(texts: list[Any]) -> None:
    for number, text in enumerate(texts, start=1):
        if not isinstance(text, str):
            raise InputError(f"item {number}: {type(text).__name__} given; a text is needed")


def _load_pyfunc(path: str) -> PyFunc:
    """The hook that MLflow calls (mlflow.pyfunc, loader_module)."""
    check_registered(Path(path))
    return PyFunc(Classifier(Path(path)))
