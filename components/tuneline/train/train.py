"""train: PreparedData -> TrainedModel.

Alone: `train(...)`. Several processes: torchrun -m tuneline.train DATA OUT CONFIG.json starts this in each. The step
chooses by train.distributed: this process, processes.py (several GPUs here), or trainjob.py (several machines).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForSequenceClassification
from transformers.utils import logging as transformers_logging

from tuneline import checkpoint
from tuneline.artifacts import Decision, PreparedData, read_split, sha256_file
from tuneline.config import ModelConfig, TrainConfig, from_flat
from tuneline.errors import InputError
from tuneline.inputs import of_table
from tuneline.packing import PackedClassifier, classifier_for
from tuneline.progress import Progress, say
from tuneline.step import Artifact, Metrics, step
from tuneline.train import processes, trainjob
from tuneline.train.checkpoints import address, code_hash, open_checkpoints
from tuneline.train.group import Group
from tuneline.train.loop import Examples, Numbers, train_loop
from tuneline.train.precision import uses_bf16
from tuneline.train.record import Recorder
from tuneline.train.vocabulary import bring_back, set_aside

# What transformers' families (BERT and RoBERTa; DistilBERT, BART and Llama; GPT-2) call dropout inside the encoder.
_ATTENTION_DROPOUT = ("attention_probs_dropout_prob", "attention_dropout", "attn_pdrop")
_ENCODER_DROPOUT = ("hidden_dropout_prob", "dropout", "resid_pdrop", "embd_pdrop", *_ATTENTION_DROPOUT)


def train(
    data: Path, model: ModelConfig, settings: TrainConfig, out: Path, recorder: Recorder | None = None
) -> Numbers:
    """Fine-tune the checkpoint on prepared data and write a flat Hugging Face folder to `out`.

    Args:
        data: folder of PreparedData.
        model: the checkpoint.
        settings: how to train.
        out: folder to write (by the first process only).
        recorder: gets each step's and each epoch's metrics.

    Returns:
        train_seconds, train_examples_per_second, train_tokens_per_second, validation_loss, validation_accuracy.

    Raises:
        InputError: the checkpoint cannot be loaded as a classifier.
    """
    group = _join()
    manifest = PreparedData.load(data)
    torch.manual_seed(settings.seed)
    network = load_network(model.name, manifest.labels, settings.encoder_dropout)
    network.to(_device())
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

    classifier = classifier_for(network)
    if group.rank == 0:
        kind = "packed rows" if isinstance(classifier, PackedClassifier) else "padded rows"
        say(f"[train] {kind}, {'bf16' if uses_bf16(settings.precision, network.device) else 'fp32'}")
    examples = {name: _examples(data, name) for name in ("train", "validation")}
    aside = None
    if isinstance(classifier, PackedClassifier):  # one that pads would look for the padding's own row
        aside = set_aside(network, *(part.input_ids for part in examples.values()))
    if aside:
        examples = {name: replace(part, input_ids=aside.ids(part.input_ids)) for name, part in examples.items()}
    checkpoints = open_checkpoints(training_key(manifest, model, settings), group, settings)
    metrics = train_loop(
        classifier, examples["train"], examples["validation"], settings, on_step, on_epoch, group, checkpoints
    )  # fmt: skip
    if aside:
        bring_back(network, aside, settings, len(examples["train"].labels))
    if group.rank == 0:
        save(network, data, manifest, out)
    if group.size > 1:
        dist.barrier()
        dist.destroy_process_group()
    return metrics


def training_key(manifest: PreparedData, model: ModelConfig, settings: TrainConfig) -> str:
    """The address of a training's checkpoints: the same data, configuration and code have the same."""
    weights = sorted(checkpoint.resolve(model.name).glob("*.safetensors"))
    return address(
        data=manifest.sha256, labels=manifest.labels, cut=[manifest.max_length, manifest.long_texts],
        weights=[sha256_file(path) for path in weights],
        settings=settings.model_dump(exclude={"checkpoint_minutes", "resume"}), code=code_hash(),
    )  # fmt: skip


def load_network(name: str, labels: list[str], encoder_dropout: bool = False) -> Any:
    """The checkpoint with a fresh output layer, one unit a label, in fp32; with dropout inside the encoder, or without.

    Raises:
        InputError: no safetensors weights, some of the encoder's missing, or no architecture for text classification.
    """
    folder = checkpoint.resolve(name)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    if not list(folder.glob("*.safetensors")):
        raise InputError(f"model.name: {name}: no *.safetensors there; pickled weights are not loaded, convert them")
    names = dict(enumerate(labels))
    try:
        config = AutoConfig.from_pretrained(
            folder, num_labels=len(labels), id2label=names, label2id={label: index for index, label in names.items()},
            trust_remote_code=False,
        )  # fmt: skip
        _set_dropout(config, encoder_dropout)
        if config.pad_token_id is None:
            ends = config.eos_token_id
            config.pad_token_id = ends[0] if isinstance(ends, list) else ends
        network, report = AutoModelForSequenceClassification.from_pretrained(
            folder, config=config, dtype=torch.float32, use_safetensors=True, trust_remote_code=False,
            ignore_mismatched_sizes=True, output_loading_info=True,
        )  # fmt: skip
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise InputError(f"model.name: {name}: cannot be loaded as a text classifier: {error}") from None
    _require_encoder(name, network, report)
    _draw_output_layer(network, len(labels))
    return network


def _require_encoder(name: str, network: Any, report: dict[str, Any]) -> None:
    """Refuse weights that transformers would otherwise draw at random, or drop, without a word; a pooler may be new."""
    wrong = [*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])]
    inside = sorted(key for key in wrong if key.startswith(f"{network.base_model_prefix}.") and ".pooler." not in key)
    if inside:
        raise InputError(
            f"model.name: {name}: {len(inside)} of the encoder's weights are missing or of another shape, such as "
            f"{inside[0]}; the checkpoint does not fit its config.json"
        )


def _draw_output_layer(network: Any, labels: int) -> None:
    """A checkpoint that already classifies has an output layer for its own labels: start from a new one always."""
    encoder = set(network.base_model.modules())
    for layer in network.modules():
        if isinstance(layer, torch.nn.Linear) and layer.out_features == labels and layer not in encoder:
            torch.nn.init.normal_(layer.weight, std=getattr(network.config, "initializer_range", 0.02))
            if layer.bias is not None:
                torch.nn.init.zeros_(layer.bias)


def _set_dropout(config: Any, inside: bool) -> None:
    """Leave dropout out of the encoder, or, without a GPU, only that of attention; the classifier's own stays.

    On a CPU attention with dropout loses its fused kernel (8 times slower).
    """
    if not inside and hasattr(config, "hidden_dropout_prob") and getattr(config, "classifier_dropout", None) is None:
        config.classifier_dropout = config.hidden_dropout_prob
    without = _ENCODER_DROPOUT if not inside else () if torch.cuda.is_available() else _ATTENTION_DROPOUT
    for key in without:
        if getattr(config, key, None):
            setattr(config, key, 0.0)


def save(network: Any, data: Path, manifest: PreparedData, out: Path) -> None:
    """Write weights (safetensors), configuration, tokenizer and the decision, and nothing else."""
    out.mkdir(parents=True, exist_ok=True)
    network.save_pretrained(out, safe_serialization=True)
    for file in sorted((data / "tokenizer").iterdir()):
        shutil.copyfile(file, out / file.name)
    decision = Decision(
        manifest.labels, manifest.max_length, manifest.long_texts, manifest.model, manifest.sha256["all"],
        manifest.pairs, manifest.clean,
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


def _join() -> Group:
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return Group()
    if torch.cuda.is_available():
        torch.cuda.set_device(_device())
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    return Group(dist.get_rank(), size)


def _device() -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def _trainer(settings: TrainConfig) -> Callable[..., Numbers]:
    """Where the training is done: on other machines, in several processes here, or in this one."""
    if settings.distributed.nodes > 1:
        return trainjob.fit
    return processes.fit if settings.distributed.gpus_per_node > 1 else train


def train_step(data: Artifact, out: Artifact, shown: Metrics, **parameters: Any) -> None:
    """The KFP component's work: flat `model_*` and `train_*` parameters and prepared data in, a model out."""
    with step("train", parameters) as run:
        run.dataset(PreparedData.load(Path(data.path)))
        model, settings = from_flat(ModelConfig, parameters), from_flat(TrainConfig, parameters)
        metrics = _trainer(settings)(Path(data.path), model, settings, Path(out.path), run)
        run.metrics({name: value for name, value in metrics.items() if name.startswith("train_")})
        for name, value in metrics.items():
            shown.log_metric(name, value)
        training = training_key(PreparedData.load(Path(data.path)), model, settings)
        out.metadata |= {"framework": "transformers", "base_model": model.name, "training": training}
