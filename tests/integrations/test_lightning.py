"""Lightning: the fit after a find is the fit without one, bit for bit, and the curve is the fit's own."""

import logging
import random
import signal

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

pl = pytest.importorskip("lightning.pytorch", reason="the tests of the integration need lightning")

from lightning.pytorch.callbacks import Callback, ModelCheckpoint  # noqa: E402 - once it is known to be there
from lightning.pytorch.loggers import CSVLogger  # noqa: E402
from lightning.pytorch.plugins.precision import MixedPrecision  # noqa: E402

from lrfinder import ArgumentError, LRFinderError, LRFinderWarning, StopReason  # noqa: E402
from lrfinder.integrations.lightning import CAPTURED, LearningRateFinder, find_lr  # noqa: E402
from tests.fingerprint import Fingerprint, bits, differences, process_state  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory"),
    pytest.mark.filterwarnings("ignore::lrfinder.LRFinderWarning"),  # what the curves of tiny problems look like
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*"),
]
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

FIND = {"start_lr": 1e-4, "end_lr": 10.0, "num_iter": 12, "progress": False}


class Net(pl.LightningModule):
    """Batch norm, dropout, Python's own randomness, a counter, logging."""

    def __init__(self, lr=0.01):
        super().__init__()
        self.save_hyperparameters()
        self.lr = lr
        self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 1))
        self.seen = 0
        self.faulty = False

    def training_step(self, batch, batch_idx):
        x, y = batch
        self.seen += 1
        if self.faulty and self.seen == 5:
            raise RuntimeError("in the middle of a step")
        loss = nn.functional.mse_loss(self.net(x), y + 0.01 * random.random())
        self.log("train", loss, on_step=True, on_epoch=True, batch_size=len(x))
        return loss

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.net[0].bias.data.mul_(0.999)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)


class Groups(Net):
    """Two groups, a schedule that steps with every batch."""

    def configure_optimizers(self):
        groups = [{"params": self.net[4].parameters(), "lr": self.lr / 10}, {"params": self.net[:4].parameters()}]
        optimizer = torch.optim.AdamW(groups, lr=self.lr)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, [self.lr / 10, self.lr], total_steps=40)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Lists(Net):
    """Lists of optimizers and schedulers, and hooks of the user's around the step."""

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=self.lr)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]

    def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None):
        self.clip_gradients(optimizer, 0.1, "value")

    def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure):
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        self.steps = getattr(self, "steps", 0) + 1


class Plateau(Net):
    def configure_optimizers(self):
        optimizer = torch.optim.RMSprop(self.parameters(), lr=self.lr)
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "monitor": "train"}}


class Quasi(Net):
    def configure_optimizers(self):
        return torch.optim.LBFGS(self.parameters(), lr=self.lr, max_iter=3)


class Adversaries(Net):
    """Two optimizers, so manual optimization, with a scheduler that training_step asks for."""

    def __init__(self, lr=0.01):
        super().__init__(lr)
        self.automatic_optimization = False
        self.other = nn.Linear(1, 1)

    def training_step(self, batch, batch_idx):
        first, second = self.optimizers()
        schedule = self.lr_schedulers()
        x, y = batch
        made = self.net(x)
        loss = nn.functional.mse_loss(made, y)
        second.zero_grad()
        self.manual_backward(loss)
        second.step()
        critic = nn.functional.softplus(self.other(made.detach())).mean()
        first.zero_grad()
        self.manual_backward(critic)
        first.step()
        schedule.step()
        return loss

    def configure_optimizers(self):
        first = torch.optim.SGD(self.other.parameters(), lr=0.1)
        second = torch.optim.Adam(self.net.parameters(), lr=self.lr)
        return [first, second], [torch.optim.lr_scheduler.ExponentialLR(first, 0.99)]


class Both(Net):
    """Trains on two loaders at a time."""

    def training_step(self, batch, batch_idx):
        return super().training_step(batch["a"], batch_idx) + super().training_step(batch["b"], batch_idx)


class Stream(IterableDataset):
    def __iter__(self):
        generator = torch.Generator().manual_seed(3)
        for x in torch.randn(70, 4, generator=generator):
            yield x, x.sum(0, keepdim=True)


class Data(pl.LightningDataModule):
    def __init__(self):
        super().__init__()
        self.generator = torch.Generator().manual_seed(5)
        self.setups = 0

    def setup(self, stage):
        self.setups += 1
        self.dataset = dataset()

    def train_dataloader(self):
        return DataLoader(self.dataset, batch_size=16, shuffle=True, generator=self.generator)


def dataset():
    x = torch.randn(112, 4, generator=torch.Generator().manual_seed(0))
    return TensorDataset(x, x.sum(1, keepdim=True))


def loader(**options):
    return DataLoader(dataset(), **{"batch_size": 16, "shuffle": True, **options})


def trainer(**options):
    silent = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    return pl.Trainer(**{"max_epochs": 2, "accelerator": "cpu", "log_every_n_steps": 1, **silent, **options})


def seed():
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002 - the global stream, which Lightning's workers use


def trained(module):
    """Return all that tells one training from another."""
    state = {name: bits(tensor) for name, tensor in module.state_dict().items()}
    state["attributes"] = (module.lr, dict(module.hparams), module.seen, getattr(module, "steps", None))
    state["logged"] = {name: float(value) for name, value in module.trainer.callback_metrics.items()}
    state["progress"] = (module.trainer.global_step, module.trainer.current_epoch)
    state["optimizers"] = repr([each.state_dict() for each in module.trainer.optimizers])
    state["schedulers"] = repr([each.scheduler.state_dict() for each in module.trainer.lr_scheduler_configs])
    return {**state, "python": random.random(), "torch": float(torch.rand(()))}


def scaler():
    return [MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0**40))]


SETUPS = {
    "plain": (Net, loader, dict, {}),
    "accumulation and clipping": (Net, loader, lambda: {"accumulate_grad_batches": 2, "gradient_clip_val": 0.5}, {}),
    "more accumulation than an epoch has": (Net, loader, lambda: {"accumulate_grad_batches": 50}, {}),
    "bfloat16": (Net, loader, lambda: {"precision": "bf16-mixed"}, {}),
    "scaler": (Net, loader, lambda: {"plugins": scaler()}, {}),
    "groups, one cycle": (Groups, loader, dict, {}),
    "lists, hooks": (Lists, loader, dict, {}),
    "plateau": (Plateau, loader, dict, {}),
    "closure": (Quasi, loader, dict, {}),
    "manual": (Adversaries, loader, dict, {"optimizer": "Adam"}),
    "limited": (Net, loader, lambda: {"limit_train_batches": 3}, {}),
    "overfit": (Net, lambda: loader(shuffle=False), lambda: {"overfit_batches": 2}, {}),
    "stream": (Net, lambda: DataLoader(Stream(), batch_size=10), dict, {}),
    "combined": (Both, lambda: {"a": loader(), "b": loader(batch_size=30)}, dict, {}),
    "generator": (Net, lambda: loader(generator=torch.Generator().manual_seed(2)), dict, {}),
    "data module": (Net, Data, dict, {}),
    "by steps": (Net, loader, lambda: {"max_epochs": -1, "max_steps": 9}, {}),
}


@pytest.mark.parametrize("setup", SETUPS)
def test_a_fit_after_a_find_is_the_fit_without_it(setup):
    make, data, options, named = SETUPS[setup]
    outcomes = []
    for finds in (False, True):
        seed()
        module, batches, fitting = make(), data(), trainer(**options())
        if finds:
            before = Fingerprint(module=module, data=batches, trainer=fitting).values, process_state()
            result = find_lr(fitting, module, batches, apply=False, **named, **FIND)
            after = Fingerprint(module=module, data=batches, trainer=fitting).values, process_state()
            assert not differences(before[0], after[0])
            assert not differences(before[1], after[1])
            assert len(result.losses) >= 4
            assert result.total_steps is not None or setup == "stream"
        fitting.fit(module, batches)
        outcomes.append(trained(module))

    assert not differences(*outcomes)
