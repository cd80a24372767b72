"""The face of train: a KFP component that calls train_step."""

from kfp import dsl

from tuneline.images import TRAIN


@dsl.component(base_image=TRAIN, install_kfp_package=False)
def train(
    data: dsl.Input[dsl.Dataset],
    model: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    model_name: str,
    train_epochs: int,
    train_learning_rate: float,
    train_batch_size: int,
    train_pass_tokens: int,
    train_warmup_share: float,
    train_weight_decay: float,
    train_layer_decay: float,
    train_early_stopping: int,
    train_best_metric: str,
    train_tune: str,
    train_top_layers: int,
    train_lora_rank: int,
    train_cache: bool,
    train_cache_gib: float,
    train_class_weights: bool,
    train_sampling: str,
    train_logit_adjustment: float,
    train_label_smoothing: float,
    train_focal_gamma: float,
    train_encoder_dropout: bool,
    train_checkpoint_minutes: float,
    train_resume: bool,
    train_precision: str,
    train_compile: str,
    train_price_per_hour: float,
    train_seed: int,
    train_distributed: dict,
    train_decision: dict,
):
    """Fine-tune the checkpoint."""
    from tuneline.train.train import train_step

    train_step(
        data,
        model,
        metrics,
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
    )
