"""TensorBoard, wandb, MLflow and optuna, each by a callback of a few lines."""

from pathlib import Path
from typing import Any

import pytest

from tinygpt2 import (
    Callback,
    GPT2Config,
    GPT2Model,
    TensorBoardLogger,
    TrainingConfig,
    TrainingHistory,
    TrainState,
    make_dataloader,
    on_evaluation,
    train,
)

pytestmark = pytest.mark.ecosystem

SHAPE = GPT2Config(vocab_size=8, context_length=8, n_layer=1, n_head=2, n_embd=8, dropout=0.0)


def trained(*callbacks: Any, learning_rate: float = 1e-2, **options: Any) -> TrainingHistory:  # noqa: ANN401
    loader = make_dataloader([0, 1, 2, 3, 4, 5, 6, 7] * 20, batch_size=4, context_length=8)
    config = TrainingConfig(epochs=3, learning_rate=learning_rate, eval_batches=2)
    model = GPT2Model(SHAPE)
    return train(model, loader, loader, config, callbacks=callbacks, device="cpu", progress=False, **options)


def test_tensorboard_reads_the_curves_and_what_else_is_written(tmp_path: Path) -> None:
    """`TensorBoardLogger` writes the curves; hyperparameters and samples go beside them through PyTorch's writer."""
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    from torch.utils.tensorboard.writer import SummaryWriter  # noqa: PLC0415

    class Written(Callback):
        def on_end(self, state: TrainState, error: BaseException | None) -> None:  # noqa: ARG002
            with SummaryWriter(str(tmp_path)) as writer:
                writer.add_text("sample", "In the summer", state.step)
                writer.add_hparams({"n_layer": SHAPE.n_layer}, {"loss": state.history.val_losses[-1] or 0.0})

    history = trained(TensorBoardLogger(tmp_path), Written())
    events = reader.EventAccumulator(str(tmp_path)).Reload()
    losses = [event.value for event in events.Scalars("evaluation/val_loss")]
    assert losses == pytest.approx(history.val_losses)
    assert "sample/text_summary" in events.Tags()["tensors"]


def test_wandb_offline_has_the_losses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    with wandb.init(project="tinygpt2", mode="offline", dir=str(tmp_path), config=SHAPE.to_dict()) as run:

        def log(state: TrainState) -> None:
            run.log({"val_loss": state.history.val_losses[-1]}, step=state.step, commit=True)

        history = trained(on_evaluation(log))
        assert run.summary["val_loss"] == pytest.approx(history.val_losses[-1])
        assert run.config["n_embd"] == SHAPE.n_embd
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))


def test_mlflow_has_the_losses(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow", minversion="2.10")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    with mlflow.start_run() as run:
        mlflow.log_params(SHAPE.to_dict())
        history = trained(
            on_evaluation(lambda state: mlflow.log_metric("val_loss", state.history.val_losses[-1], step=state.step))
        )
    logged = mlflow.MlflowClient().get_metric_history(run.info.run_id, "val_loss")
    assert [metric.value for metric in logged] == pytest.approx(history.val_losses)
    assert [metric.step for metric in logged] == history.steps


def test_optuna_prunes_through_a_callback(tmp_path: Path) -> None:
    """The exception that the callback raises is the one that ends the run; the saved run is intact."""
    optuna = pytest.importorskip("optuna", minversion="4")
    steps: list[int] = []

    def objective(trial: Any) -> float:  # noqa: ANN401
        def prune(state: TrainState) -> None:
            steps.append(state.step)
            trial.report(state.history.val_losses[-1], state.step)
            if trial.should_prune():
                raise optuna.TrialPruned

        rate = trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True)
        directory = tmp_path / str(trial.number)
        return trained(on_evaluation(prune), learning_rate=rate, checkpoint_dir=directory).val_losses[-1] or 0.0

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(pruner=optuna.pruners.MedianPruner(n_startup_trials=1))
    for rate in (1e-1, 1e-4):
        study.enqueue_trial({"learning_rate": rate})
    study.optimize(objective, n_trials=2)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "PRUNED"]
    assert study.best_params["learning_rate"] == 1e-1
    # A pruned run is intact, and can go on.
    history = trained(learning_rate=1e-4, checkpoint_dir=tmp_path / "1", resume=True)
    assert len(history.steps) > len(study.trials[1].intermediate_values)
