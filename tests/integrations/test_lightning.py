"""Lightning: the fit after a find is the fit without one, bit for bit, and the curve is the fit's own."""

import json
import logging
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from packaging.version import Version
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

pl = pytest.importorskip("lightning.pytorch", reason="the tests of the integration need lightning")

from lightning.pytorch.callbacks import BaseFinetuning, Callback, ModelCheckpoint  # noqa: E402 - once it is known to be there
from lightning.pytorch.loggers import CSVLogger  # noqa: E402
from lightning.pytorch.plugins.precision import MixedPrecision  # noqa: E402

from lrfinder import ArgumentError, LRFinderError, LRFinderWarning, NoSuggestionError, StopReason  # noqa: E402
from lrfinder.integrations.lightning import LearningRateFinder, find_lr  # noqa: E402
from lrfinder.integrations.lightning_state import CAPTURED  # noqa: E402
from lrfinder.snapshot import storage  # noqa: E402
from tests.fingerprint import Fingerprint, bits, differences, process_state  # noqa: E402
from tests.notes import Notes  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory"),
    pytest.mark.filterwarnings("ignore::lrfinder.LRFinderWarning"),  # what the curves of tiny problems look like
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*"),
]
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

FIND = {"start_lr": 1e-4, "end_lr": 10.0, "num_iter": 12, "progress": False}
CLEAR = {"start_lr": 1e-4, "end_lr": 100.0, "num_iter": 40, "progress": False}  # enough for a suggestion


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


class Inside(torch.optim.Optimizer):
    """Passes its step on to the optimizer that it holds."""

    def __init__(self, base):
        self.base_optimizer = base
        super().__init__(base.param_groups, base.defaults)
        self.param_groups = base.param_groups

    def step(self, closure=None):
        return self.base_optimizer.step(closure)


class Wrapping(Net):
    def configure_optimizers(self):
        return Inside(torch.optim.Adam(self.parameters(), lr=self.lr))


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
    "an optimizer inside another": (Wrapping, loader, dict, {}),
    "manual": (Adversaries, loader, dict, {"optimizer": "Adam"}),
    "limited": (Net, loader, lambda: {"limit_train_batches": 3}, {}),
    "overfit": (Net, lambda: loader(shuffle=False), lambda: {"overfit_batches": 2}, {}),
    "stream": (Net, lambda: DataLoader(Stream(), batch_size=10), dict, {}),
    "combined": (Both, lambda: {"a": loader(), "b": loader(batch_size=30)}, dict, {}),
    "generator": (Net, lambda: loader(generator=torch.Generator().manual_seed(2)), dict, {}),
    "data module": (Net, Data, dict, {}),
    "workers": (Net, lambda: loader(num_workers=1, persistent_workers=True), dict, {}),
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


@pytest.mark.parametrize("finds", [find_lr, "callback"])
@pytest.mark.parametrize("fault", [RuntimeError, KeyboardInterrupt])
def test_after_a_fault_in_the_middle_of_a_step_too(finds, fault):
    seed()
    plain, fitting = Net(), trainer()
    fitting.fit(plain, loader())
    expected = trained(plain)

    seed()
    module, batches, fitting = Net(), loader(), trainer()
    before, handler = Fingerprint(module=module, trainer=fitting).values, signal.getsignal(signal.SIGINT)

    def step(batch, batch_idx):
        if len(calls) == 5:
            with torch.no_grad():
                module.net[0].weight.fill_(7.0)
            if fault is KeyboardInterrupt:
                signal.raise_signal(signal.SIGINT)
            raise RuntimeError("in the middle of a step")
        calls.append(batch_idx)
        return Net.training_step(module, batch, batch_idx)

    calls = Notes()
    if finds is find_lr:
        module.training_step = step
        with pytest.raises(fault, match=None if fault is KeyboardInterrupt else "in the middle of a step"):
            find_lr(fitting, module, batches, **FIND)
        del module.training_step
    else:
        finder = LearningRateFinder(apply=False, **FIND)
        fitting.callbacks.append(Survivor(finder, step, fault))
    assert finds != find_lr or not differences(before, Fingerprint(module=module, trainer=fitting).values)
    assert signal.getsignal(signal.SIGINT) is handler
    fitting.fit(module, batches)

    assert len(calls) == 5
    assert not differences(expected, trained(module))


class Survivor(Callback):
    """Runs a finder whose step fails, and lets the fit go on all the same."""

    def __init__(self, finder, step, fault):
        self.finder, self.step, self.fault = finder, step, fault

    def on_train_epoch_start(self, trainer, pl_module):
        self.finder.on_train_epoch_start(trainer, pl_module)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == 0:
            pl_module.training_step = self.step
            with pytest.raises(self.fault):
                self.finder.on_train_batch_start(trainer, pl_module, batch, batch_idx)
            del pl_module.training_step


@pytest.mark.parametrize("where", ["setup", "on_fit_start", "train_dataloader", "configure_optimizers"])
def test_an_interrupt_while_the_fit_is_set_up_arrives_as_itself(where, monkeypatch):
    def interrupted(*_, **__):
        signal.raise_signal(signal.SIGINT)

    data = Data()
    module, fitting = Net(), trainer()
    monkeypatch.setattr(data if where == "train_dataloader" else module, where, interrupted)
    before, handler = Fingerprint(module=module, trainer=fitting).values, signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        find_lr(fitting, module, datamodule=data, **FIND)

    assert not differences(before, Fingerprint(module=module, trainer=fitting).values)
    assert signal.getsignal(signal.SIGINT) is handler


def test_every_captured_place_exists():
    fitting = trainer()
    for path, words in CAPTURED.items():
        owner = fitting
        for name in filter(None, path.split(".")):
            owner = getattr(owner, name)
        assert hasattr(owner, "__dict__")
        assert words


class Renamed(pl.LightningModule):
    """The rate under another name, in the hyperparameters only, and not the rate itself but a factor of it."""

    training_step = Net.training_step

    def __init__(self, learning_rate=0.02, batch=16):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 1))
        self.seen, self.faulty = 0, False

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.hparams.learning_rate * self.hparams.batch / 256)


class Deaf(Net):
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.5)


@pytest.mark.parametrize("make", [Net, Groups, Lists])
def test_the_next_fit_trains_with_the_suggestion(make):
    module, fitting = make(), trainer()
    result = find_lr(fitting, module, loader(), apply=True, **CLEAR)

    assert module.lr == module.hparams.lr == result.suggestion.lr != 0.01
    fitting.fit(module, loader())
    top = max(fitting.optimizers[0].param_groups, key=lambda group: sum(p.numel() for p in group["params"]))
    assert top.get("max_lr", top.get("initial_lr", top["lr"])) == result.suggestion.lr


def test_the_last_line_of_the_block_fits_lightning():
    def last(result):
        return str(result).splitlines()[-1]

    def in_configure_optimizers(result):
        return f"use: lr={result.suggestion.lr:.2g} in Net.configure_optimizers"

    applied = find_lr(trainer(), Net(), loader(), apply=True, **CLEAR)
    assert last(applied) == f"use: trainer.fit(module), whose lr is {applied.suggestion.lr:.2g} now"
    found = find_lr(trainer(), Net(), loader(), **CLEAR)
    assert last(found) == in_configure_optimizers(found)
    adopted, kept = LearningRateFinder(**CLEAR), LearningRateFinder(apply=False, **CLEAR)
    for finder in (adopted, kept):
        trainer(max_steps=1, callbacks=[finder]).fit(Net(), loader())
    assert last(adopted.result) == "use: nothing to do, the fit goes on with it"
    assert last(kept.result) == in_configure_optimizers(kept.result)
    assert last(find_lr(trainer(), Net(), loader(), **NOTHING_LEARNED)).startswith("no suggestion: ")


def test_an_attribute_that_is_a_factor_of_the_lr():
    module, fitting = Renamed(), trainer()
    result = find_lr(fitting, module, loader(), apply=True, **CLEAR)
    fitting.fit(module, loader())

    assert fitting.optimizers[0].param_groups[0]["lr"] == pytest.approx(result.suggestion.lr, rel=1e-12)
    assert module.hparams.learning_rate == pytest.approx(16 * result.suggestion.lr)


def test_warning_if_configure_optimizers_ignores_the_attribute():
    with pytest.warns(LRFinderWarning, match=r"does not follow it: the learning rate would be 0.5"):
        find_lr(trainer(), Deaf(), loader(), apply=True, **CLEAR)


NOTHING_LEARNED = {"start_lr": 1e-12, "end_lr": 1e-11, "num_iter": 12, "rule": "fastai_valley", "progress": False}


def test_applying_without_a_suggestion_is_an_error_and_changes_nothing():
    module = Net()
    before = Fingerprint(module=module).values
    with pytest.raises(NoSuggestionError):
        find_lr(trainer(), module, loader(), apply=True, **NOTHING_LEARNED)
    assert differences(before, Fingerprint(module=module).values) == []
    assert len(find_lr(trainer(), module, loader(), **NOTHING_LEARNED).losses) == 12
    with pytest.raises(NoSuggestionError):
        trainer(callbacks=[LearningRateFinder(**NOTHING_LEARNED)]).fit(Net(), loader())


def test_nothing_is_applied_unless_it_is_asked_for():
    module = Net()
    find_lr(trainer(), module, loader(), **CLEAR)
    assert module.lr == module.hparams.lr == 0.01


class Nested(Net):
    """Keeps its learning rate in a group of hyperparameters, and one in an object."""

    def __init__(self, optimizer):
        super().__init__()
        self.save_hyperparameters()
        self.optimizer = SimpleNamespace(lr=optimizer["lr"])
        del self.lr, self.hparams["lr"]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.hparams.optimizer["lr"])


def test_a_dotted_attribute_leads_into_hyperparameters_and_objects():
    module, fitting = Nested({"lr": 0.01, "momentum": 0.9}), trainer()
    result = find_lr(fitting, module, loader(), apply=True, attribute="optimizer.lr", **CLEAR)

    assert module.hparams.optimizer == {"lr": result.suggestion.lr, "momentum": 0.9}
    assert module.optimizer.lr == result.suggestion.lr
    fitting.fit(module, loader())
    assert fitting.optimizers[0].param_groups[0]["lr"] == result.suggestion.lr
    with pytest.raises(ArgumentError, match=r"needs an attribute 'optimizer.rate'"):
        find_lr(trainer(), module, loader(), apply=True, attribute="optimizer.rate", **FIND)


@pytest.mark.parametrize("standalone", [True, False])
def test_the_model_is_copied_once(standalone, monkeypatch):
    allocate, copied = storage._allocate, []

    def counting(sources, device):
        copied.append(sum(source.numel() * source.element_size() for source in sources))
        return allocate(sources, device)

    monkeypatch.setattr(storage, "_allocate", counting)
    module = Net()
    module.net.append(nn.Linear(1, 50_000))
    module.net.append(nn.Linear(50_000, 1))
    size = sum(t.numel() * t.element_size() for t in [*module.parameters(), *module.buffers()])
    if standalone:
        find_lr(trainer(), module, loader(), **FIND)
    else:
        trainer(max_steps=1, callbacks=[LearningRateFinder(apply=False, **FIND)]).fit(module, loader())
    assert size <= sum(copied) < 1.01 * size


def test_what_a_hook_changes_before_the_first_batch_is_restored():
    class Scaling(Net):
        def on_fit_start(self):
            self.net[0].weight.data.mul_(0.5)

    seed()
    module = Scaling()
    expected = bits(module.net[0].weight)
    seen = []
    find_lr(trainer(), module, loader(), on_step=lambda *_: seen.append(bits(module.net[0].weight)), **FIND)
    assert bits(module.net[0].weight) == expected
    assert expected not in seen


def test_snapshot_options_and_extra_state_are_taken():
    outside = nn.Linear(1, 1)

    class Counting(Net):
        def training_step(self, batch, batch_idx):
            outside.weight.data.add_(1)
            return super().training_step(batch, batch_idx)

    before, start = bits(outside.weight), outside.weight.item()
    options = {"extra_state": [outside], "snapshot_device": "cpu", "snapshot_frozen": False}
    find_lr(trainer(), Counting(), loader(), **options, **FIND)
    assert bits(outside.weight) == before
    trainer(max_steps=1, callbacks=[LearningRateFinder(apply=False, **options, **FIND)]).fit(Counting(), loader())
    assert outside.weight.item() == pytest.approx(start + 1)  # the fit's own step


@pytest.mark.parametrize("make", [Net, Groups, Lists, Plateau])
def test_the_callback_trains_on_with_the_suggestion(make):
    seed()
    module, finder = make(), LearningRateFinder(**CLEAR)
    fitting = trainer(callbacks=[finder])
    fitting.fit(module, loader())
    outcome = trained(module)

    seed()
    other = make(finder.result.suggestion.lr)
    trainer().fit(other, loader())
    expected = trained(other)
    # Scaled schedules may differ from built ones in the last bit.
    near = {"optimizers", "schedulers", "logged", *other.state_dict()} if make is Groups else set()
    assert set(differences(outcome, expected)) <= near
    for name, value in other.state_dict().items():
        torch.testing.assert_close(module.state_dict()[name], value)


def test_the_callback_leaves_a_training_alone_that_does_not_adopt(tmp_path):
    outcomes = []
    for name in ("without", "with"):
        seed()
        finders = [LearningRateFinder(epochs=(0, 2), apply=False, **CLEAR)] if name == "with" else []
        module = Groups()
        fitting = trainer(
            max_epochs=3,
            callbacks=[*finders, ModelCheckpoint(tmp_path / name / "kept", save_top_k=-1)],
            logger=CSVLogger(tmp_path / name, name="", version=""),
            enable_checkpointing=True,
            profiler="simple",
        )
        fitting.fit(module, loader())
        if finders:
            assert sorted(finders[0].results) == [0, 2]
            assert finders[0].results[2].total_steps == 3 * 7 - 2 * 7
        files = sorted(str(path.relative_to(tmp_path / name)) for path in (tmp_path / name).rglob("*"))
        logged = (tmp_path / name / "metrics.csv").read_text()
        profiled = {key: len(times) for key, times in fitting.profiler.recorded_durations.items()}
        own = {key: count for key, count in profiled.items() if "LearningRateFinder" not in key}
        outcomes.append(trained(module) | {"files": files, "metrics": logged, "profiled": own})

    assert not differences(*outcomes)


@pytest.mark.parametrize("name", ["RichProgressBar", "TQDMProgressBar"])
def test_the_bar_of_a_fit_stands_still_meanwhile(name, capsys):
    if name == "RichProgressBar":
        pytest.importorskip("rich", reason="needs rich")
        if Version(pl.__version__) < Version("2.6"):
            pytest.skip("older ones do not work with the newest rich")
    bar = getattr(pl.callbacks, name)(refresh_rate=1)
    finder = LearningRateFinder(epochs=(0, 1), apply=False, **CLEAR)  # long enough for the bar's own thread
    fitting = trainer(callbacks=[finder, bar], enable_progress_bar=True)
    fitting.fit(Net(), loader())

    assert len(finder.results) == 2
    assert bar.is_enabled
    assert "7/7" in capsys.readouterr().out


def test_a_find_writes_no_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    logger = CSVLogger(tmp_path, name="", version="")
    fitting = pl.Trainer(max_epochs=2, accelerator="cpu", logger=logger, log_every_n_steps=1)  # checkpoints, bars
    find_lr(fitting, Net(), loader(), **CLEAR)

    assert not list(tmp_path.iterdir())


# What Lightning's own tuner is known for


def test_it_can_be_run_again_after_epochs_of_training():
    module, fitting = Net(), trainer()
    fitting.fit(module, loader())
    result = find_lr(fitting, module, loader(), **CLEAR | {"end_lr": 0.01, "num_iter": 40})  # more than an epoch's 7

    assert (len(result.losses), result.stop_reason) == (40, StopReason.FINISHED)
    assert fitting.current_epoch == 2


@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_curve_starts_at_the_loss_of_the_first_step(accumulation):
    torch.manual_seed(0)
    module, fitting = Net(), trainer(accumulate_grad_batches=accumulation)
    module.net = nn.Sequential(nn.Linear(4, 1))
    module.on_train_batch_end = lambda *_: None
    batches = [next(iter(loader(shuffle=False)))] * 8
    batches = [batches[0], [2 * part for part in batches[0]]] * 4
    first = [float(nn.functional.mse_loss(module.net(x).detach(), y)) for x, y in batches[:accumulation]]
    plain = DataLoader(TensorDataset(*(torch.cat(parts) for parts in zip(*batches, strict=True))), batch_size=16)
    result = find_lr(fitting, module, plain, **CLEAR)

    assert result.losses[0] == pytest.approx(np.mean(first), abs=0.05 * np.mean(first))
    assert result.lrs[0] == 1e-4


@pytest.mark.skipif(Version(pl.__version__) < Version("2.6"), reason="older tuners suggest the same")
def test_the_steepest_slope_is_over_the_logarithm_of_the_lr():
    from lightning.pytorch.tuner.lr_finder import _LRFinder

    result = find_lr(trainer(), Net(), loader(batch_size=56), start_lr=1e-5, end_lr=10.0, num_iter=80, progress=False)
    theirs = _LRFinder("exponential", 1e-5, 10.0, 80)
    theirs.results = {"lr": result.lrs.tolist(), "loss": result.smoothed.tolist()}
    slope = np.gradient(result.smoothed, np.log(result.lrs))

    assert result.landmarks.steepest == pytest.approx(result.lrs[np.argmin(slope)], rel=0.5)
    assert theirs.suggestion() < result.landmarks.steepest / 10


def test_the_lr_survives_a_checkpoint(tmp_path):
    finder = LearningRateFinder(**CLEAR)
    fitting = trainer(callbacks=[finder, ModelCheckpoint(tmp_path)], enable_checkpointing=True)
    fitting.fit(Net(), loader())
    lr = finder.result.suggestion.lr

    again, module = LearningRateFinder(**CLEAR), Net()
    fitting = trainer(callbacks=[again, ModelCheckpoint(tmp_path)], max_epochs=4, enable_checkpointing=True)
    fitting.fit(module, loader(), ckpt_path=next(tmp_path.glob("*.ckpt")))

    assert module.lr == module.hparams.lr == lr
    assert fitting.optimizers[0].param_groups[0]["lr"] == lr
    assert again.result.suggestion == finder.result.suggestion
    assert fitting.current_epoch == 4


def test_a_find_within_a_fit_that_goes_on_from_a_checkpoint(tmp_path):
    fitting = trainer(callbacks=[ModelCheckpoint(tmp_path)], enable_checkpointing=True)
    fitting.fit(Net(), loader())

    module, finder = Net(), LearningRateFinder(epochs=(2,), **CLEAR)
    fitting = trainer(callbacks=[finder, ModelCheckpoint(tmp_path)], max_epochs=3, enable_checkpointing=True)
    fitting.fit(module, loader(), ckpt_path=next(tmp_path.glob("*.ckpt")))

    assert fitting.optimizers[0].param_groups[0]["lr"] == finder.result.suggestion.lr == module.lr


def test_in_the_middle_of_a_fit_the_current_lr_becomes_the_suggestion():
    class Watch(Callback):
        def on_train_batch_end(self, trainer, *_):
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    rates, finder = [], LearningRateFinder(epochs=(1,), **CLEAR)
    module = Lists()  # a tenth of the rate after each epoch
    trainer(callbacks=[finder, Watch()], max_epochs=3).fit(module, loader())

    lr = finder.result.suggestion.lr
    assert rates[0] == 0.01
    assert rates[7] == pytest.approx(lr)
    assert rates[14] == pytest.approx(lr / 10)
    assert module.lr == pytest.approx(10 * lr)  # at which configure_optimizers would lead here


def test_two_ranks_find_the_same_and_train_on_as_without(tmp_path):
    environment = {key: value for key, value in os.environ.items() if key not in {"RANK", "WORLD_SIZE", "LOCAL_RANK"}}
    command = [
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        "-m",
        "tests.integrations.lightning_ranks",
    ]
    process = subprocess.run(
        [sys.executable, "-m", *command, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        env={**environment, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-3000:]
    reports = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]

    for report in reports:
        assert not report["changed"]
        assert report["plain"] == report["after a find"] == report["with the callback"] == report["after a fault"]
        assert report["lr"] == report["callback's lr"] == reports[0]["lr"]
        assert report["losses"] == reports[0]["losses"]
        # A process group that lives until the interpreter shuts down may abort the process.
        assert report["process group ended"]
        assert (report["steps"], report["world"]) == (4, 2)
    assert [report["error"][0] for report in reports] == ["RankError", "RuntimeError"]
    assert "Rank 1: RuntimeError: only here" in reports[0]["error"][1]


# Ways of training, and what is refused


def test_a_scaler_that_finds_its_scale_costs_no_points():
    result = find_lr(trainer(plugins=scaler()), Net(), loader(), **FIND)

    assert result.lrs[0] == FIND["start_lr"]
    assert result.steps > len(result.lrs) + 5


@pytest.mark.filterwarnings("ignore:`training_step` returned `None`")
def test_steps_without_a_loss_are_gaps():
    class Picky(Net):
        def training_step(self, batch, batch_idx):
            return None if batch_idx == 3 else super().training_step(batch, batch_idx)

    result = find_lr(trainer(), Picky(), loader(), **FIND)
    kept = np.geomspace(FIND["start_lr"], FIND["end_lr"], FIND["num_iter"])[[0, 1, 2, 4, 5, 6, 7, 8, 9]]
    np.testing.assert_allclose(result.lrs[: len(kept)], kept[: len(result.lrs)])
    assert len(result.lrs) >= 5


def test_a_closure_is_measured_by_its_first_call():
    result = find_lr(trainer(), Quasi(), loader(), **FIND)
    plain = find_lr(trainer(), Net(), loader(), **FIND)

    assert result.losses[0] == pytest.approx(plain.losses[0], rel=1)
    assert result.context.optimizer == "LBFGS"


def test_held_out_data_repeats_and_refining():
    held_out = find_lr(trainer(), Net(), loader(), val_loader=loader(), val_batches=2, **FIND)
    repeated = find_lr(trainer(accumulate_grad_batches=2), Net(), loader(), repeats=2, **CLEAR)
    refined = find_lr(trainer(max_epochs=20), Net(), loader(), refine=True, **CLEAR)

    assert held_out.context.val
    assert len(held_out.lrs) >= 5
    assert repeated.suggestion.spread is not None
    assert refined.suggestion.rule == "refine"


def test_options_reach_find():
    points = []
    options = {"total_steps": 500, "on_step": lambda *point: points.append(point), "rule": "fastai_valley"}
    result = find_lr(trainer(), Net(), loader(), apply=False, **FIND, **options)

    assert result.total_steps == 500
    assert [lr for _, lr, _ in points] == result.lrs.tolist()


def test_frozen_layers_are_frozen_in_the_find_too():
    class Freeze(BaseFinetuning):
        def freeze_before_training(self, pl_module):
            self.freeze(pl_module.net[0])

        def finetune_function(self, pl_module, epoch, optimizer):
            pass

    class Loud(Callback):
        def on_train_start(self, trainer, pl_module):
            raise AssertionError("other callbacks are silent")

    class Watching(Net):
        def training_step(self, batch, batch_idx):
            frozen.append(not self.net[0].weight.requires_grad)
            return super().training_step(batch, batch_idx)

    frozen, module = [], Watching()
    find_lr(trainer(callbacks=[Freeze(), Loud()]), module, loader(), **FIND)

    assert len(frozen) >= 5
    assert all(frozen)
    assert module.net[0].weight.requires_grad


def test_it_reads_the_data_of_a_module():
    class Own(Net):
        def train_dataloader(self):
            return loader()

        def val_dataloader(self):
            raise AssertionError("nothing is validated")

        def validation_step(self, batch, batch_idx):
            return self.training_step(batch, batch_idx)

    assert len(find_lr(trainer(), Own(), **FIND).lrs) >= 5


def test_the_optimizer_is_named_where_there_are_several():
    for named in (1, "Adam"):
        module = Adversaries()
        result = find_lr(trainer(), module, loader(), optimizer=named, apply=True, **CLEAR)
        assert result.context.optimizer == "Adam"
        assert module.lr == result.suggestion.lr
    with pytest.raises(ArgumentError, match=r"got None and 2 optimizers \(0: 'SGD', 1: 'Adam'\)"):
        find_lr(trainer(), Adversaries(), loader(), **FIND)
    with pytest.raises(ArgumentError, match=r"\(0: 'SGD', 1: 'Adam'\), got 'Lion'"):
        find_lr(trainer(), Adversaries(), loader(), optimizer="Lion", **FIND)


def test_manual_optimization_has_to_show_its_loss():
    class Silent(Adversaries):
        def training_step(self, batch, batch_idx):
            super().training_step(batch, batch_idx)

    with pytest.raises(ArgumentError, match=r"needs a training_step that returns the loss to look at, got Silent"):
        find_lr(trainer(), Silent(), loader(), optimizer=1, **FIND)
    with pytest.raises(ArgumentError, match=r"val_loader.*does not step by itself"):
        find_lr(trainer(), Adversaries(), loader(), optimizer=1, val_loader=loader(), **FIND)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fast_dev_run": 2}, r"needs more than the few batches of Trainer\(fast_dev_run=2\)"),
        ({"limit_train_batches": 0}, "must train on at least one batch"),
        ({"strategy": "ddp_spawn", "devices": 2}, r"spawns or forks, got _MultiProcessingLauncher; put LearningRateF"),
    ],
)
def test_what_a_trainer_cannot_do_is_said(options, message):
    with pytest.raises(ArgumentError, match=message):
        find_lr(trainer(**options), Net(), loader(), **FIND)


def test_the_other_package_is_named():
    other = pytest.importorskip("pytorch_lightning", reason="needs the package that is refused")
    fitting = other.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, barebones=True)
    with pytest.raises(ArgumentError, match=r"got Trainer of the package pytorch_lightning; import lightning.pytorch"):
        find_lr(fitting, Net(), loader(), **FIND)
    with pytest.raises(
        ArgumentError, match=r"find_lr\(module=...\) must be a lightning.pytorch.LightningModule, got Linear"
    ):
        find_lr(trainer(), nn.Linear(1, 1), loader(), **FIND)


def test_an_attribute_is_needed_where_it_is_to_be_set():
    module = Net()
    del module.lr
    module.configure_optimizers = lambda: torch.optim.SGD(module.parameters(), lr=0.1)
    module._hparams = {}
    with pytest.raises(ArgumentError, match=r"apply=True\) needs an attribute 'lr' or 'learning_rate'.*none in Net"):
        find_lr(trainer(), module, loader(), apply=True, **FIND)
    with pytest.raises(ArgumentError, match=r"needs an attribute 'rate'"):
        find_lr(trainer(), Net(), loader(), apply=True, attribute="rate", **FIND)
    assert len(find_lr(trainer(), module, loader(), **FIND).lrs) >= 5


def test_bad_options_are_said_before_anything_is_touched():
    module, fitting = Net(), trainer()
    before = Fingerprint(module=module, trainer=fitting).values
    with pytest.raises(LRFinderError, match="must exceed"):
        find_lr(fitting, module, loader(), start_lr=1.0, end_lr=0.1)
    assert not differences(before, Fingerprint(module=module, trainer=fitting).values)


def test_a_trial_run_of_the_trainer_skips_the_callback():
    finder, module = LearningRateFinder(**FIND), Net()
    with pytest.warns(LRFinderWarning, match="does nothing under Trainer"):
        trainer(callbacks=[finder], fast_dev_run=2).fit(module, loader())
    assert (finder.result, module.lr) == (None, 0.01)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("DeepSpeedStrategy", "keeps parameters and optimizers elsewhere"),
        ("ModelParallelStrategy", "could not be tested"),
    ],
)
def test_strategies_that_cannot_be_restored_are_refused_with_the_reason(name, reason):
    fitting = trainer()
    fitting.strategy.__class__ = type(name, (type(fitting.strategy),), {})
    with pytest.raises(ArgumentError, match=rf"got Trainer\(strategy={name}\), which {reason}"):
        find_lr(fitting, Net(), loader(), **FIND)
