"""The pipeline: prepare -> train -> evaluate -> register. The DAG, and only the DAG."""

# The arguments that a type checker would miss below are output artifacts, which KFP fills in.
# pyright: reportCallIssue=false

from collections.abc import Callable
from typing import Any, NamedTuple

from kfp import dsl

from tuneline.config import SECTIONS, DataConfig, ModelConfig, RegisterConfig, Rules, TrainConfig
from tuneline.evaluate.component import evaluate
from tuneline.prepare.component import prepare
from tuneline.register.component import register
from tuneline.train.component import train

DATA, MODEL, TRAIN, REGISTER = DataConfig(train="-"), ModelConfig(), TrainConfig(), RegisterConfig()


class Outputs(NamedTuple):
    """What a finished run leaves behind."""

    data: dsl.Dataset
    audit: dsl.HTML
    preparation: dsl.Metrics
    model: dsl.Model
    training: dsl.Metrics
    evaluation: dsl.Artifact
    metrics: dsl.Metrics
    report: dsl.HTML
    version: dsl.Artifact


def _described(pipeline: Callable[..., Any]) -> Callable[..., Any]:
    """Give the parameters the schema's sentences, which KFP shows in its "create run" form."""
    lines = [
        f"    {section}_{name}: {' '.join((field.description or '').split())}"
        for section, schema in SECTIONS.items()
        for name, field in schema.model_fields.items()
    ]
    pin = "    data_pin: Content hash of sources and tokenizer; prepare refuses others. Never empty one by hand."
    head = "Labelled text in, a registered text classifier out."
    pipeline.__doc__ = "\n".join([head, "", "Args:", *lines, pin])
    return pipeline


def build(pinned: bool, configure: Callable[[str, Any], None] | None = None) -> Any:
    """The pipeline.

    Args:
        pinned: data_pin will be given, so that an equal pin may reuse prepared data.
        configure: called with each step's name and task, to put on it what a cluster needs.
    """

    @dsl.pipeline(name="tuneline-finetune")
    @_described
    def finetune(
        data_train: str,
        data_validation: str = DATA.validation,
        data_test: str = DATA.test,
        data_text_column: str = DATA.text_column,
        data_label_column: str = DATA.label_column,
        data_pair_column: str = DATA.pair_column,
        data_group_column: str = DATA.group_column,
        data_slice_columns: list = DATA.slice_columns,
        data_time_column: str = DATA.time_column,
        data_validation_from: str = DATA.validation_from,
        data_test_from: str = DATA.test_from,
        data_encoding: str = DATA.encoding,
        data_delimiter: str = DATA.delimiter,
        data_label_map: dict = DATA.label_map,
        data_label_order: list = DATA.label_order,
        data_corrections: str = DATA.corrections,
        data_validation_share: float = DATA.validation_share,
        data_test_share: float = DATA.test_share,
        data_max_train: int = DATA.max_train,
        data_max_validation: int = DATA.max_validation,
        data_max_test: int = DATA.max_test,
        data_seed: int = DATA.seed,
        data_near_duplicates: float = DATA.near_duplicates,
        data_min_class_rows: int = DATA.min_class_rows,
        data_label_errors: bool = DATA.label_errors,
        data_policy: dict = DATA.policy.model_dump(),  # noqa: B008
        data_workers: int = DATA.workers,
        data_pin: str = "",
        model_name: str = MODEL.name,
        model_max_length: int = MODEL.max_length,
        model_long_texts: str = MODEL.long_texts,
        train_epochs: int = TRAIN.epochs,
        train_learning_rate: float = TRAIN.learning_rate,
        train_batch_size: int = TRAIN.batch_size,
        train_pass_tokens: int = TRAIN.pass_tokens,
        train_warmup_share: float = TRAIN.warmup_share,
        train_weight_decay: float = TRAIN.weight_decay,
        train_layer_decay: float = TRAIN.layer_decay,
        train_early_stopping: int = TRAIN.early_stopping,
        train_best_metric: str = TRAIN.best_metric,
        train_tune: str = TRAIN.tune,
        train_top_layers: int = TRAIN.top_layers,
        train_lora_rank: int = TRAIN.lora_rank,
        train_cache: bool = TRAIN.cache,
        train_cache_gib: float = TRAIN.cache_gib,
        train_class_weights: bool = TRAIN.class_weights,
        train_sampling: str = TRAIN.sampling,
        train_logit_adjustment: float = TRAIN.logit_adjustment,
        train_label_smoothing: float = TRAIN.label_smoothing,
        train_focal_gamma: float = TRAIN.focal_gamma,
        train_encoder_dropout: bool = TRAIN.encoder_dropout,
        train_checkpoint_minutes: float = TRAIN.checkpoint_minutes,
        train_resume: bool = TRAIN.resume,
        train_precision: str = TRAIN.precision,
        train_compile: str = TRAIN.compile,
        train_price_per_hour: float = TRAIN.price_per_hour,
        train_seed: int = TRAIN.seed,
        train_distributed: dict = TRAIN.distributed.model_dump(),  # noqa: B008
        train_decision: dict = TRAIN.decision.model_dump(exclude_none=True),  # noqa: B008
        register_name: str = REGISTER.name,
        register_rules: dict = Rules().model_dump(exclude_none=True),  # noqa: B008
    ) -> Outputs:
        prepared = prepare(
            data_train=data_train,
            data_validation=data_validation,
            data_test=data_test,
            data_text_column=data_text_column,
            data_label_column=data_label_column,
            data_pair_column=data_pair_column,
            data_group_column=data_group_column,
            data_slice_columns=data_slice_columns,
            data_time_column=data_time_column,
            data_validation_from=data_validation_from,
            data_test_from=data_test_from,
            data_encoding=data_encoding,
            data_delimiter=data_delimiter,
            data_label_map=data_label_map,
            data_label_order=data_label_order,
            data_corrections=data_corrections,
            data_validation_share=data_validation_share,
            data_test_share=data_test_share,
            data_max_train=data_max_train,
            data_max_validation=data_max_validation,
            data_max_test=data_max_test,
            data_seed=data_seed,
            data_near_duplicates=data_near_duplicates,
            data_min_class_rows=data_min_class_rows,
            data_label_errors=data_label_errors,
            data_policy=data_policy,
            data_workers=data_workers,
            data_pin=data_pin,
            model_name=model_name,
            model_max_length=model_max_length,
            model_long_texts=model_long_texts,
        ).set_caching_options(enable_caching=pinned)
        trained = train(
            data=prepared.outputs["data"],
            model_name=model_name,
            train_epochs=train_epochs,
            train_learning_rate=train_learning_rate,
            train_batch_size=train_batch_size,
            train_pass_tokens=train_pass_tokens,
            train_warmup_share=train_warmup_share,
            train_weight_decay=train_weight_decay,
            train_layer_decay=train_layer_decay,
            train_early_stopping=train_early_stopping,
            train_best_metric=train_best_metric,
            train_tune=train_tune,
            train_top_layers=train_top_layers,
            train_lora_rank=train_lora_rank,
            train_cache=train_cache,
            train_cache_gib=train_cache_gib,
            train_class_weights=train_class_weights,
            train_sampling=train_sampling,
            train_logit_adjustment=train_logit_adjustment,
            train_label_smoothing=train_label_smoothing,
            train_focal_gamma=train_focal_gamma,
            train_encoder_dropout=train_encoder_dropout,
            train_checkpoint_minutes=train_checkpoint_minutes,
            train_resume=train_resume,
            train_precision=train_precision,
            train_compile=train_compile,
            train_price_per_hour=train_price_per_hour,
            train_seed=train_seed,
            train_distributed=train_distributed,
            train_decision=train_decision,
        ).set_caching_options(enable_caching=False)
        evaluated = evaluate(
            data=prepared.outputs["data"],
            model=trained.outputs["model"],
            register_name=register_name,
        ).set_caching_options(enable_caching=False)
        registered = register(
            evaluation=evaluated.outputs["evaluation"],
            model=trained.outputs["model"],
            register_name=register_name,
            register_rules=register_rules,
        ).set_caching_options(enable_caching=False)
        if configure:
            tasks = {"prepare": prepared, "train": trained, "evaluate": evaluated, "register": registered}
            for name, task in tasks.items():
                configure(name, task)
        return Outputs(
            data=prepared.outputs["data"],
            audit=prepared.outputs["report"],
            preparation=prepared.outputs["metrics"],
            model=trained.outputs["model"],
            training=trained.outputs["metrics"],
            evaluation=evaluated.outputs["evaluation"],
            metrics=evaluated.outputs["metrics"],
            report=evaluated.outputs["report"],
            version=registered.outputs["version"],
        )

    return finetune
