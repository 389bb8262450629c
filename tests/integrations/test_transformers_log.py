"""A Trainer's own log gives the diagnosis of its training."""

import json
import os

import pytest
import torch
from packaging.version import Version
from torch import nn

os.environ.setdefault("HF_HUB_OFFLINE", "1")

transformers = pytest.importorskip("transformers", reason="needs transformers: pip install 'lrfinder[transformers]'")

from lrfinder import ArgumentError, TrainingVerdict  # noqa: E402
from lrfinder.cli import main  # noqa: E402
from lrfinder.integrations.transformers import diagnose  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


class Regression(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 1)

    def forward(self, x, labels):
        output = self.linear(x)
        return {"loss": nn.functional.mse_loss(output, labels), "logits": output}


@pytest.fixture
def trained(tmp_path, monkeypatch):
    transformers.utils.logging.disable_progress_bar()
    monkeypatch.setattr(transformers.trainer_callback.PrinterCallback, "on_log", lambda *args, **kwargs: None)

    def train(lr, **arguments):
        torch.manual_seed(0)
        inputs = torch.randn(256, 4)
        rows = [{"x": x, "labels": x.sum(0, keepdim=True) + 3} for x in inputs]
        arguments = {"max_steps": 120, "logging_steps": 2, "save_strategy": "no", "max_grad_norm": 0.0, **arguments}
        arguments = transformers.TrainingArguments(
            str(tmp_path), learning_rate=lr, report_to=[], use_cpu=True, disable_tqdm=True, optim="sgd", **arguments
        )
        trainer = transformers.Trainer(Regression(), arguments, train_dataset=rows)
        trainer.train()
        return trainer

    return train


@pytest.mark.skipif(Version(transformers.__version__) < Version("5.0.dev0"), reason="transformers 4 rounds its log")
@pytest.mark.parametrize(("lr", "verdict"), [(3e-3, "TOO_LOW"), (0.1, "FINE"), (3.0, "TOO_HIGH")])
def test_the_verdict_of_a_training(lr, verdict, trained):
    assert diagnose(trained(lr)).verdict is TrainingVerdict[verdict]


def test_the_saved_state_gives_the_same(trained, tmp_path, capsys):
    trainer = trained(3e-3, save_strategy="steps", save_steps=120)
    state = tmp_path / "checkpoint-120" / "trainer_state.json"
    assert main(["diagnose", str(state)]) == 0
    assert capsys.readouterr().out.startswith(str(diagnose(trainer)))
    assert len(json.loads(state.read_text(encoding="utf-8"))["log_history"]) == 60


def test_a_trainer_without_losses_is_an_argument_error(trained):
    with pytest.raises(ArgumentError, match="logging_steps"):
        diagnose(trained(0.1, max_steps=2, logging_steps=50))
    with pytest.raises(ArgumentError, match=r"must be a transformers\.Trainer, got str"):
        diagnose("trainer_state.json")
