"""train: PreparedData -> TrainedModel.

Alone: `train(...)`. Several processes: torchrun -m tuneline.train DATA OUT CONFIG.json starts this in each. The step
chooses by train.distributed: this process, processes.py (several GPUs here), or trainjob.py (several machines).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from tuneline import checkpoint
from tuneline.artifacts import Decision, PreparedData, address, read_split, sha256_file
from tuneline.calibration import check, fit, fit_temperature
from tuneline.config import DecisionConfig, ModelConfig, TrainConfig
from tuneline.errors import InputError
from tuneline.inputs import Inputs, of_table
from tuneline.packing import PackedClassifier, PaddedClassifier, classifier_for
from tuneline.progress import Progress, say
from tuneline.recipe import from_flat
from tuneline.step import Artifact, Metrics, step
from tuneline.threads import within_quota
from tuneline.tokenizer import name_padding
from tuneline.train import low_rank, processes, trainjob
from tuneline.train.cache import above_the_cut
from tuneline.train.checkpoints import code_hash, open_checkpoints
from tuneline.train.compiling import compile_where_it_pays
from tuneline.train.freezing import freeze, told
from tuneline.train.group import Group
from tuneline.train.loop import Examples, Numbers, measure, train_loop
from tuneline.train.network import borrowed_padding, load_network, output_layers
from tuneline.train.passes import PassLimit
from tuneline.train.precision import uses_bf16
from tuneline.train.record import Recorder
from tuneline.train.vocabulary import SetAside, bring_back, set_aside

COURSELESS = {
    "checkpoint_minutes", "resume", "decision", "pass_tokens", "cache", "cache_gib", "price_per_hour",
}  # fmt: skip
"""Settings that leave a training's course as it is, but for rounding and the draws of dropout: whoever lowers
pass_tokens for want of memory goes on from the last checkpoint, as a lone process goes on that lowers it by itself."""

PATIENCE = timedelta(hours=6)
"""How long processes wait for one of them, which may be computing what lies below the tuned layers; a process that ends
is seen by torchrun at once. Torch's own is ten minutes."""


def train(
    data: Path,
    model: ModelConfig,
    settings: TrainConfig,
    out: Path | None,
    recorder: Recorder | None = None,
    on_answers: Callable[[np.ndarray], None] | None = None,
) -> Numbers:
    """Fine-tune the checkpoint on prepared data and write a flat Hugging Face folder to `out`.

    Args:
        data: folder of PreparedData.
        model: the checkpoint.
        settings: how to train.
        out: folder to write (by the first process only); None for a trial, of which neither model nor checkpoints are
            kept.
        recorder: gets each step's and each epoch's metrics.
        on_answers: gets the probabilities of the validation texts, float64 [texts, labels], before the temperature.

    Returns:
        What train_loop does.

    Raises:
        InputError: the checkpoint cannot be loaded as a classifier.
    """
    group = _join()
    manifest = PreparedData.load(data)
    progress: list[Progress] = []

    def on_step(step: int, total: int, facts: Numbers) -> None:
        if group.rank:
            return
        if not progress:
            progress.append(Progress("train", total, "steps"))
        progress[0].update(step, loss=facts["loss"], examples_per_second=facts["examples_per_second"])
        if recorder:
            recorder.metrics(facts, step)

    def on_epoch(epoch: int, facts: Numbers) -> None:
        if recorder and not group.rank:
            recorder.metrics(facts, epoch)

    ready = make_ready(data, manifest, model, settings)
    network, examples, aside = ready.network, ready.examples, ready.aside
    if group.rank == 0:
        say(f"[train] {ready.told}")
        if ready.compiled:
            say("[train] the layers are compiled in the first step (train.compile)")
    checkpoints = open_checkpoints(training_key(manifest, model, settings), group, settings) if out else None
    answers: list[torch.Tensor] = []
    with above_the_cut(ready.classifier, examples, settings, group, origin(manifest, model)) as (tuned, parts):
        metrics = train_loop(
            tuned, parts["train"], parts["validation"], settings, on_step, on_epoch, group, checkpoints,
            answers.append,
        )  # fmt: skip
    if aside:
        bring_back(network, aside, settings, len(examples["train"].labels), int(metrics["train_steps"]))
    low_rank.merge(network)
    if on_answers and group.rank == 0:
        on_answers(Inputs([], None, examples["validation"].windows).mean(answers[-1].cpu().numpy()))
    if out and group.rank == 0:
        temperature = calibrate(network, answers[-1], examples["validation"])
        decided = decision_of(network, settings, manifest.labels, _examples(data, "validation"))
        save(network, data, manifest, out, temperature=temperature, **decided)
    if group.size > 1:
        dist.barrier()
        dist.destroy_process_group()
    return metrics


@dataclass(frozen=True)
class Ready:
    """All that a training needs before its first step.

    Attributes:
        network: the checkpoint, parts of it frozen, on its device.
        classifier: it as what takes token rows.
        examples: train and validation; their ids are places in what trains of the embedding.
        aside: the rest of the embedding; None where all of it trains, or none.
        told: how it trains, for the log.
        compiled: whether the first step compiles the layers.
    """

    network: Any
    classifier: PackedClassifier | PaddedClassifier
    examples: dict[str, Examples]
    aside: SetAside | None
    told: str
    compiled: bool


def make_ready(data: Path, manifest: PreparedData, model: ModelConfig, settings: TrainConfig) -> Ready:
    """Load the checkpoint and the rows.

    Raises:
        InputError: the checkpoint cannot be loaded as a classifier, or parted as train.tune asks, or train.decision
            names labels that there are not.
    """
    check(settings.decision, manifest.labels)
    torch.manual_seed(settings.seed)
    network = load_network(model.name, manifest.labels, settings.encoder_dropout)
    freeze(network, settings)
    network.to(_device())
    classifier = classifier_for(network)
    kind = "packed rows"
    if isinstance(classifier, PaddedClassifier):
        kind = f"rows of like length, padded ({network.config.model_type} is not known to take packed ones)"
    low = uses_bf16(settings.precision, network.device)
    how = f"{kind}, {'bf16' if low else 'fp32'}; {told(network)}"
    examples = {name: _examples(data, name) for name in ("train", "validation")}
    compiled = compile_where_it_pays(classifier, examples["train"].lengths, settings, low)
    if settings.class_weights:
        examples["train"] = weigh(examples["train"], manifest.class_weights)
    aside = None
    embeddings_train = network.get_input_embeddings().weight.requires_grad
    if embeddings_train and isinstance(classifier, PackedClassifier):  # one that pads would look for the padding's row
        aside = set_aside(network, *(part.input_ids for part in examples.values()))
    if aside:
        examples = {name: replace(part, input_ids=aside.ids(part.input_ids)) for name, part in examples.items()}
    return Ready(network, classifier, examples, aside, how, compiled)


def training_key(manifest: PreparedData, model: ModelConfig, settings: TrainConfig) -> str:
    """The address of a training's checkpoints: the same data, configuration and code have the same."""
    return address(
        **origin(manifest, model), labels=manifest.labels,
        settings=settings.model_dump(exclude=COURSELESS), code=code_hash(),
    )  # fmt: skip


def origin(manifest: PreparedData, model: ModelConfig) -> dict[str, Any]:
    """What token rows and initial weights come from, and what the network makes of them (config.json)."""
    folder = checkpoint.resolve(model.name)
    weights = sorted(folder.glob("*.safetensors"))
    return {
        "data": manifest.sha256, "tokenizer": manifest.tokenizer_sha256,
        "cut": [manifest.max_length, manifest.long_texts], "weights": [sha256_file(path) for path in weights],
        "config": sha256_file(folder / "config.json"),
    }  # fmt: skip


def calibrate(network: Any, answers: torch.Tensor, validation: Examples) -> float:
    """Fit a temperature on the validation split and divide the output layer by it, which leaves every answer as it is.

    Args:
        network: as trained.
        answers: its probabilities of the validation rows, [rows, labels].
        validation: the rows.

    Returns:
        The temperature; 1 where the family's output layer is not to be told from others.
    """
    layers = output_layers(network, answers.shape[1])
    if len(layers) != 1:
        return 1.0
    temperature = fit_temperature(answers.cpu().numpy(), np.array(validation.labels), validation.windows)
    with torch.no_grad():
        for weight in layers[0].parameters():
            weight /= temperature
    say(f"[train] temperature {temperature:.3g}, of the validation split")
    return temperature


def decision_of(network: Any, settings: TrainConfig, labels: list[str], validation: Examples) -> dict[str, Any]:
    """What Decision holds of thresholds, costs and abstention, fitted on the validation split.

    In fp32, as the model will be asked: between bf16 and fp32 a text's probability may cross a threshold.

    Args:
        network: as trained, with its temperature.
        settings: of the training.
        labels: label names.
        validation: the rows; several may be windows of one text, which is answered by their mean.
    """
    if settings.decision == DecisionConfig():
        return {}
    found: list[torch.Tensor] = []
    limit = PassLimit(settings.pass_tokens)
    measure(classifier_for(network), validation, settings.batch_size, Group(), on_answers=found.append, limit=limit)
    of_texts = np.array(validation.labels)
    if validation.windows is not None:
        of_texts = of_texts[np.cumsum(validation.windows) - 1]
    rows = Inputs(validation.input_ids, validation.pair_at, validation.windows)
    decided = fit(settings.decision, labels, rows.mean(found[0].cpu().numpy()), of_texts)
    told = [f"{len(decided['thresholds'])} thresholds"] if decided.get("thresholds") else []
    told += [f"abstains below {decided['abstain_below']:.3g}"] if decided["abstain_below"] else []
    say(f"[train] decision, on {len(of_texts)} validation texts: {', '.join(told) or 'nothing to fit'}")
    return decided


def save(network: Any, data: Path, manifest: PreparedData, out: Path, **decided: Any) -> None:
    """Write weights (safetensors), configuration, tokenizer and the decision, and nothing else.

    Args:
        network: as trained.
        data: folder of PreparedData.
        manifest: its manifest.
        out: folder to write.
        decided: what else Decision holds: temperature, thresholds, costs, abstention.
    """
    out.mkdir(parents=True, exist_ok=True)
    network.save_pretrained(out, safe_serialization=True)
    for file in sorted((data / "tokenizer").iterdir()):
        shutil.copyfile(file, out / file.name)
    if (end := borrowed_padding(network.config)) is not None:
        name_padding(out, end)
    decision = Decision(
        manifest.labels, manifest.max_length, manifest.long_texts, manifest.model, manifest.sha256["all"],
        manifest.pairs, manifest.clean, **decided,
    )  # fmt: skip
    decision.save(out)


def _examples(data: Path, split: str) -> Examples:
    table = read_split(data, split)
    inputs, labels = of_table(table), table.column("label").to_pylist()
    if inputs.windows is None:
        return Examples(inputs.rows, labels, inputs.pair_at)
    # A window learns its text's label, and a text counts once, however many windows it has: 1 on average over the rows.
    each = len(inputs.rows) / len(labels)
    weights = [each / count for count in inputs.windows]
    return Examples(
        inputs.rows, inputs.repeat(labels), inputs.pair_at, inputs.repeat(weights), inputs.windows
    )  # fmt: skip


def weigh(examples: Examples, class_weights: list[float]) -> Examples:
    """Each row's loss times its class's weight, beside the weight that it has as a window of a text.

    Raises:
        InputError: data that were prepared without class weights.
    """
    if not class_weights:
        raise InputError("train.class_weights: the prepared data hold none; prepare them anew, or set it to false")
    own = examples.weights or [1.0] * len(examples.labels)
    weights = [weight * class_weights[label] for weight, label in zip(own, examples.labels, strict=True)]
    return replace(examples, weights=weights)


def _join() -> Group:
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return Group()
    if torch.cuda.is_available():
        torch.cuda.set_device(_device())
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
    return Group(dist.get_rank(), size)


def _device() -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def _trainer(settings: TrainConfig) -> Callable[..., Numbers]:
    """Where the training is done: on other machines, in several processes here, or in this one."""
    return trainjob.fit if settings.distributed.nodes > 1 else fit_here


def fit_here(
    data: Path, model: ModelConfig, settings: TrainConfig, out: Path, recorder: Recorder | None = None
) -> Numbers:
    """`train` on this machine, in as many processes as train.distributed.gpus_per_node says."""
    return (processes.fit if settings.distributed.gpus_per_node > 1 else train)(data, model, settings, out, recorder)


def record_end(run: Recorder, metrics: Numbers, settings: TrainConfig) -> None:
    """Record what a training came to: train_*, and with early stopping validation_* of the epoch that was kept.

    MLflow shows a metric by its highest step: where that is a later epoch than the best, these stand a step behind it.
    """
    run.metrics({name: value for name, value in metrics.items() if name.startswith("train_")})
    best = int(metrics.get("train_best_epoch", 0))
    last = min(best + settings.early_stopping, settings.epochs)  # that was measured
    if 0 < best < last:
        kept = {name: value for name, value in metrics.items() if name.startswith("validation_")}
        run.metrics(kept, last + 1)


def train_step(data: Artifact, out: Artifact, shown: Metrics, **parameters: Any) -> None:
    """The KFP component's work: flat `model_*` and `train_*` parameters and prepared data in, a model out."""
    with step("train", parameters) as run:
        within_quota()
        run.dataset(PreparedData.load(Path(data.path)))
        model, settings = from_flat(ModelConfig, parameters), from_flat(TrainConfig, parameters)
        metrics = _trainer(settings)(Path(data.path), model, settings, Path(out.path), run)
        record_end(run, metrics, settings)
        edition = checkpoint.revision(model.name, checkpoint.resolve(model.name))
        run.tags({"tuneline.base_model_revision": edition})
        for name, value in metrics.items():
            shown.log_metric(name, value)
        training = training_key(PreparedData.load(Path(data.path)), model, settings)
        out.metadata |= {"framework": "transformers", "base_model": model.name, "training": training}
