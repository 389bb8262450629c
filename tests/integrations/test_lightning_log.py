"""What Lightning's CSVLogger writes gives the diagnosis of the training."""

import warnings

import pytest
import torch
from torch import nn

pl = pytest.importorskip("lightning.pytorch", reason="needs lightning: pip install 'lrfinder[lightning]'")

from lightning.pytorch.callbacks import LearningRateMonitor  # noqa: E402
from lightning.pytorch.loggers import CSVLogger  # noqa: E402

from lrfinder import ArgumentError, TrainingVerdict  # noqa: E402
from lrfinder.integrations.lightning import diagnose  # noqa: E402


class Regression(pl.LightningModule):
    def __init__(self, lr, name="train_loss"):
        super().__init__()
        self.lr, self.name, self.linear = lr, name, nn.Linear(4, 1)

    def training_step(self, batch):
        loss = nn.functional.mse_loss(self.linear(batch), batch.sum(1, keepdim=True) + 3)
        self.log(self.name, loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr)


def train(folder, lr, **options):
    torch.manual_seed(0)
    trainer = pl.Trainer(
        max_steps=120,
        accelerator="cpu",
        logger=CSVLogger(folder),
        callbacks=[LearningRateMonitor("step")],
        log_every_n_steps=2,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(Regression(lr, **options), torch.utils.data.DataLoader(torch.randn(256, 4), 8))
    return trainer


@pytest.mark.parametrize(("lr", "verdict"), [(1e-3, "TOO_LOW"), (0.1, "FINE"), (3.0, "TOO_HIGH")])
def test_trainer_logger_folder_and_file_give_the_verdict(lr, verdict, tmp_path):
    trainer = train(tmp_path, lr)
    folder = trainer.logger.log_dir
    found = [diagnose(each) for each in (trainer, trainer.logger, folder, f"{folder}/metrics.csv")]
    assert {each.verdict for each in found} == {TrainingVerdict[verdict]}


def test_a_loss_under_an_unusual_name_can_be_named(tmp_path):
    trainer = train(tmp_path, 1e-3, name="nll")
    with pytest.raises(ArgumentError, match=r"its columns are .*nll"):
        diagnose(trainer)
    assert diagnose(trainer, loss_column="nll").verdict is TrainingVerdict.TOO_LOW


def test_what_holds_no_metrics_is_an_argument_error(tmp_path):
    with pytest.raises(ArgumentError, match=r"folder with metrics\.csv"):
        diagnose(tmp_path / "nowhere")
    with pytest.raises(ArgumentError, match="a trainer with a CSVLogger, got Linear"):
        diagnose(nn.Linear(1, 1))
