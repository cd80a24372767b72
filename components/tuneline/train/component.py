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
    train_tune: str,
    train_encoder_dropout: bool,
    train_checkpoint_minutes: float,
    train_resume: bool,
    train_precision: str,
    train_seed: int,
    train_distributed: dict,
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
        train_tune=train_tune,
        train_encoder_dropout=train_encoder_dropout,
        train_checkpoint_minutes=train_checkpoint_minutes,
        train_resume=train_resume,
        train_precision=train_precision,
        train_seed=train_seed,
        train_distributed=train_distributed,
    )
