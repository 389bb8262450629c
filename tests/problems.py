"""Small trainings of many kinds, each complete and the same at every call: what the tests run the finder on."""

import functools
import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    Sampler,
    TensorDataset,
    WeightedRandomSampler,
)

from lrfinder import LRFinder
from lrfinder.optim import has_two_passes, needs_closure

__all__ = ["PROBLEMS", "SAM", "Setup", "build", "images", "mlp", "one_thread", "plain", "seed_all", "vectors"]


@pytest.fixture(autouse=True)
def one_thread():
    """The networks here are so small that a second thread only waits for the first; import it to apply it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass(kw_only=True)
class Setup:
    """All that a training consists of, and a plain loop that trains it without the finder.

    Args:
        model: In the mode in which it is trained.
        optimizer: Its optimizer.
        loader: The training data.
        criterion: As for `LRFinder`.
        loss_fn: As for `LRFinder`.
        step: As for `LRFinder`.
        options: Further arguments of `LRFinder`.
        scheduler: Attached to the optimizer and stepped by the training, not by the finder.
        more: Further objects that the training changes, by name.
        lrs: The sweep's ends.
    """

    model: nn.Module
    optimizer: Any
    loader: Any
    criterion: Any = None
    loss_fn: Any = None
    step: Any = None
    options: dict[str, Any] = field(default_factory=dict)
    scheduler: Any = None
    more: dict[str, Any] = field(default_factory=dict)
    lrs: tuple[float, float] = (1e-4, 1e-1)
    _stream: Any = None

    def finder(self, **options) -> LRFinder:
        ways = {"criterion": self.criterion, "loss_fn": self.loss_fn, "step": self.step}
        return LRFinder(self.model, self.optimizer, **{**ways, **self.options, **options})

    def find(self, *, scout=False, finder=None, loader=None, **arguments):
        """Run a short range test; with `scout` the finder looks for the ends itself."""
        if not scout:
            arguments = {"start_lr": self.lrs[0], "end_lr": self.lrs[1], **arguments}
        finder = self.finder() if finder is None else finder
        loader = self.loader if loader is None else loader
        return finder.find(loader, **{"num_iter": 8, "progress": False, **arguments})

    def parts(self) -> dict[str, Any]:
        """Return everything that must be as before."""
        return {
            "model": self.model,
            "optimizer": self.optimizer,
            "loader": self.loader,
            "callables": (self.criterion, self.loss_fn, self.step),
            "options": self.options,
            "scheduler": self.scheduler,
            **self.more,
        }

    def epoch(self) -> list[float]:
        """Train on the loader once and return the losses."""
        return [self._train(batches) for batches in _grouped(self.loader, self._accumulation)]

    def train(self, steps: int) -> list[float]:
        """Train for some steps, going on where the last call left off in the middle of an epoch."""
        if self._stream is None:
            self._stream = _endless(self.loader)
        return [self._train(list(islice(self._stream, self._accumulation))) for _ in range(steps)]

    @property
    def _accumulation(self) -> int:
        return self.options.get("accumulation_steps", 1)

    def loss(self, batch) -> Tensor:
        device = next(self.model.parameters()).device
        dtype = self.options.get("autocast")
        if batch is None:
            return None
        batch = to(batch, device)
        with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
            if self.loss_fn is not None:
                return self.loss_fn(self.model, batch)
            if self.criterion is not None:
                *inputs, targets = batch
                return self.criterion(self.model(*inputs), targets)
            return self.model(**batch) if isinstance(batch, dict) else self.model(*batch)

    def _train(self, batches) -> float:
        if self.step is not None:
            loss = self.step(to(batches[0], next(self.model.parameters()).device))
        elif needs_closure(self.optimizer):
            loss = self.optimizer.step(lambda: self._backward(batches))
        elif has_two_passes(self.optimizer) or self.options.get("closure"):
            loss = self._backward(batches)
            self.optimizer.step(lambda: self._backward(batches))
        elif "grad_scaler" in self.options:
            loss = self._scaled_step(batches, self.options["grad_scaler"])
        else:
            loss = self._backward(batches)
            self._clip()
            self.optimizer.step()
        if self.scheduler is not None:
            self.scheduler.step()
        return float(loss.detach() if isinstance(loss, Tensor) else loss)

    def _backward(self, batches, scaler=None):
        self.optimizer.zero_grad()
        total = 0.0
        for batch in batches:
            loss = self.loss(batch)
            if loss is None:
                continue
            loss = loss / len(batches)
            backward = self.options.get("backward", Tensor.backward)
            backward(loss if scaler is None else scaler.scale(loss))
            total += loss.detach()
        return total

    def _scaled_step(self, batches, scaler):
        loss = self._backward(batches, scaler)
        if "max_grad_norm" in self.options:
            scaler.unscale_(self.optimizer)
        self._clip()
        scaler.step(self.optimizer)
        scaler.update()
        return loss

    def _clip(self):
        if "max_grad_norm" in self.options:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.options["max_grad_norm"])


PROBLEMS: dict[str, Callable[[torch.device], Setup]] = {}


def problem(function):
    PROBLEMS[function.__name__] = function
    return function


def build(name: str, device: torch.device | str = "cpu", seed: int = 0) -> Setup:
    """Return the problem of that name; the global random generators are seeded before it is built."""
    seed_all(seed)
    return PROBLEMS[name](torch.device(device))


def seed_all(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the global stream is what is watched
    torch.manual_seed(seed)


def to(batch, device):
    if isinstance(batch, dict):
        return {key: to(value, device) for key, value in batch.items()}
    if isinstance(batch, (list, tuple)):
        return [to(item, device) for item in batch]
    return batch.to(device)


def _endless(loader):
    while True:
        yield from loader


def _grouped(batches: Iterable, size: int):
    batches = iter(batches)
    while len(group := list(islice(batches, size))) == size:
        yield group


# Data: four batches of eight an epoch, so that every sweep passes an epoch's end.


def vectors(count=32, features=6, classes=3) -> TensorDataset:
    x = torch.randn(count, features)
    return TensorDataset(x, (x @ torch.randn(features, classes)).argmax(1))


def images(count=32) -> TensorDataset:
    return TensorDataset(torch.randn(count, 1, 8, 8), torch.randint(0, 3, (count,)))


def tokens(count=32, length=7, vocabulary=11) -> TensorDataset:
    x = torch.randint(0, vocabulary, (count, length))
    return TensorDataset(x, x.sum(1) % 3)


class Augmented(Dataset):
    """Disturbs its samples with each of the three global generators, wherever it runs."""

    def __init__(self, data):
        self.data = data

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        x, y = self.data[index]
        noise = random.random() + float(np.random.rand())  # noqa: NPY002 - the global stream is what is watched
        return x + 0.1 * torch.randn_like(x) + 0.1 * noise, y


class Stream(IterableDataset):
    """An endless-looking stream of freshly drawn samples."""

    def __iter__(self):
        for _ in range(32):
            x = torch.randn(6)
            yield x, int(x.sum() > 0)


class EpochSampler(Sampler):
    """Shuffles by its epoch, as DistributedSampler does."""

    def __init__(self, size):
        self.size = size
        self.epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        return iter(torch.randperm(self.size, generator=torch.Generator().manual_seed(self.epoch)).tolist())

    def __len__(self):
        return self.size


class BucketSampler(Sampler):
    """Gives batches in an order drawn from its own generator of Python's."""

    def __init__(self, size):
        self.size = size
        self.random = random.Random(5)

    def __iter__(self):
        starts = list(range(0, self.size, 8))
        self.random.shuffle(starts)
        return ([*range(start, start + 8)] for start in starts)

    def __len__(self):
        return self.size // 8


def mlp(features=6, classes=3, hidden=8, **options) -> nn.Sequential:
    return nn.Sequential(nn.Linear(features, hidden, **options), nn.Tanh(), nn.Linear(hidden, classes, **options))


def plain(device, loader=None, *, optimizer=None, model=None, **setup) -> Setup:
    """Return a classifier of vectors, in which what is given takes the place of the usual part."""
    model = (mlp() if model is None else model).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9) if optimizer is None else optimizer(model)
    loader = DataLoader(vectors(), batch_size=8, shuffle=True) if loader is None else loader
    return Setup(model=model, optimizer=optimizer, loader=loader, **{"criterion": nn.CrossEntropyLoss(), **setup})


# Usual networks


def _cnn():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(144, 3)
    )


def _on_images(device, model, **setup):
    return plain(device, DataLoader(images(), batch_size=8, shuffle=True), model=model, **setup)


@problem
def cnn(device):
    return _on_images(device, _cnn())


@problem
def frozen_batch_norm(device):
    model = _cnn()
    model[1].eval()
    return _on_images(device, model)


def _trainable_adam(model):
    return torch.optim.Adam([p for p in model.parameters() if p.requires_grad])


def _frozen(device, **options):
    model = _cnn()
    model[0].requires_grad_(False)
    return _on_images(device, model, optimizer=_trainable_adam, options=options)


@problem
def frozen_layers(device):
    return _frozen(device)


@problem
def frozen_layers_not_copied(device):
    return _frozen(device, snapshot_frozen=False)


@problem
def frozen_layers_in_the_optimizer(device):
    """A frozen parameter with a gradient left over is stepped."""
    setup = plain(device)
    for parameter in setup.model[0].parameters():
        parameter.grad = torch.ones_like(parameter)
        parameter.requires_grad_(False)
    return setup


@problem
def snapshot_on_the_host(device):
    return plain(device, options={"snapshot_device": "cpu"})


class Student(nn.Module):
    """Learns to predict its teacher, a moving average of itself that is frozen and written through `.data`."""

    def __init__(self, *, replace):
        super().__init__()
        self.replace = replace
        self.online, self.teacher = mlp(), mlp().requires_grad_(False)
        self.register_buffer("center", torch.zeros(3))

    def forward(self, x, y):
        with torch.no_grad():
            for mine, theirs in zip(self.online.parameters(), self.teacher.parameters(), strict=True):
                if self.replace:
                    theirs.data = theirs.data.mul(0.9).add(0.1 * mine.data)
                else:
                    theirs.data.mul_(0.9).add_(0.1 * mine.data)
            target = self.teacher(x + 0.1 * torch.randn_like(x))
            self.center.data.mul_(0.9).add_(0.1 * target.mean(0))
        return F.mse_loss(self.online(x), target - self.center) + F.cross_entropy(self.online(x), y)


@problem
def teacher(device):
    return plain(device, model=Student(replace=False), optimizer=_trainable_adam, criterion=None)


@problem
def teacher_replaced_not_copied(device):
    """The old memory is not written to, so that it needs no copy to be put back."""
    options = {"snapshot_frozen": False}
    return plain(device, model=Student(replace=True), optimizer=_trainable_adam, criterion=None, options=options)


class EncoderClassifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.encoder(self.embedding(x)).mean(1))


@problem
def transformer(device):
    """With AdamW and a scheduler attached."""
    setup = plain(
        device,
        DataLoader(tokens(), batch_size=8, shuffle=True),
        model=EncoderClassifier(),
        optimizer=lambda model: torch.optim.AdamW(model.parameters(), lr=1e-3),
        lrs=(1e-5, 1e-2),
    )
    setup.scheduler = torch.optim.lr_scheduler.OneCycleLR(setup.optimizer, max_lr=1e-2, total_steps=100)
    return setup


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.rnn = nn.LSTM(6, 8, 2, batch_first=True, dropout=0.2)
        self.head = nn.Linear(8, 3)
        self.hidden = None  # carried on from batch to batch

    def forward(self, x):
        outputs, hidden = self.rnn(self.embedding(x), self.hidden)
        self.hidden = tuple(each.detach() for each in hidden)
        return self.head(outputs[:, -1])


@problem
def rnn(device):
    """With clipping, and a hidden state that is carried on."""
    return plain(
        device,
        DataLoader(tokens(), batch_size=8, shuffle=True),
        model=Recurrent(),
        options={"max_grad_norm": 0.5},
    )


class Bag(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.EmbeddingBag(11, 3, mode="sum", sparse=True)

    def forward(self, x):
        return self.embedding(x)


@problem
def sparse_embedding(device):
    return plain(
        device,
        DataLoader(tokens(), batch_size=8, shuffle=True),
        model=Bag(),
        optimizer=lambda model: torch.optim.SparseAdam(model.parameters()),
    )


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.inside, self.outside = nn.Embedding(11, 8), nn.Linear(8, 11, bias=False)
        self.outside.weight = self.inside.weight

    def forward(self, x):
        return self.outside(self.inside(x).mean(1))


@problem
def tied_weights(device):
    return plain(device, DataLoader(tokens(), batch_size=8, shuffle=True), model=Tied())


@problem
def accumulation(device):
    return plain(device, options={"accumulation_steps": 2, "max_grad_norm": 1.0})


@problem
def model_with_its_own_loss(device):
    class WithLoss(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = mlp()

        def forward(self, x, y):
            return F.cross_entropy(self.body(x), y)

    def collate(samples):
        return {"x": torch.stack([x for x, _ in samples]), "y": torch.stack([y for _, y in samples])}

    loader = DataLoader(vectors(), batch_size=8, shuffle=True, collate_fn=collate)
    return plain(device, loader, model=WithLoss(), criterion=None)


@problem
def batches_that_are_none(device):
    """A collate function that returns None for a batch that holds a bad sample."""

    def collate(samples):
        x, y = (torch.stack(part) for part in zip(*samples, strict=True))
        return None if float(x.sum()) > 5 else (x, y)

    return plain(device, DataLoader(vectors(), batch_size=4, shuffle=True, collate_fn=collate))


@problem
def losses_that_are_none(device):
    """A loss_fn that returns None for a batch after its forward pass, with dropout and two micro-batches a step."""

    def loss_fn(model, batch):
        outputs = model(batch[0])
        return None if batch[1][0] == 0 else F.cross_entropy(outputs, batch[1])

    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, 3))
    loader = DataLoader(vectors(), batch_size=4, shuffle=True)
    return plain(device, loader, model=model, criterion=None, loss_fn=loss_fn, options={"accumulation_steps": 2})


@problem
def plain_list(device):
    return plain(device, [(torch.randn(8, 6), torch.randint(0, 3, (8,))) for _ in range(3)])


# Modules that keep more than parameters


class Buffers(nn.Module):
    """Buffers of every kind: not persistent, replaced by assignment, made on first use, for inference only."""

    def __init__(self):
        super().__init__()
        self.body = mlp()
        self.register_buffer("hidden", torch.zeros(6), persistent=False)
        self.register_buffer("replaced", torch.zeros(6))
        self.register_buffer("empty", None)
        self.register_buffer("view", torch.zeros(12)[::2])
        with torch.inference_mode():
            self.register_buffer("inference", torch.full((6,), 0.5), persistent=False)

    def forward(self, x):
        mean = x.detach().mean(0)
        self.hidden.add_(mean)
        self.replaced = 0.9 * self.replaced + 0.1 * mean
        self.empty = mean if self.empty is None else self.empty + mean
        self.view.mul_(0.5).add_(mean)
        if not hasattr(self, "lazy"):
            self.register_buffer("lazy", torch.zeros_like(mean))
        self.lazy.add_(mean)
        shift = self.hidden + self.replaced + self.empty + self.view + self.lazy
        return self.body(x - 0.1 * shift + 0.1 * self.inference.clone())


@problem
def buffers(device):
    return plain(device, model=Buffers())


class Attributes(nn.Module):
    """State in plain attributes: a count, a list, a deque, nested containers, tensors, generators, a new submodule."""

    def __init__(self):
        super().__init__()
        self.body = mlp()
        self.count = 0
        self.history = []
        self.recent = deque(maxlen=2)
        self.nested = {"sums": [0.0], "seen": set()}
        self.cache = torch.zeros(6)
        self.array = np.zeros(3)

    def forward(self, x):
        self.count += 1
        self.history.append(float(x.detach().mean()))
        self.recent.append(self.count)
        self.nested["sums"][0] += self.count
        self.nested["seen"].add(self.count)
        self.cache += x.detach().cpu().mean(0)
        self.array += self.count
        if not hasattr(self, "lazy"):
            self.lazy = nn.Identity()
        scale = 1 + 0.01 * (len(self.history) + sum(self.recent) + self.nested["sums"][0] + float(self.array.sum()))
        return self.body(self.lazy(x + self.cache.to(x.device))) / scale


@problem
def plain_attributes(device):
    return plain(device, model=Attributes())


class OwnNoise(nn.Module):
    """Draws from generators of its own, of all three kinds."""

    def __init__(self):
        super().__init__()
        self.body = mlp()
        self.torch_noise = torch.Generator().manual_seed(1)
        self.numpy_noise = np.random.default_rng(1)
        self.python_noise = random.Random(1)

    def forward(self, x):
        noise = torch.randn(6, generator=self.torch_noise) + self.numpy_noise.normal() + self.python_noise.random()
        return self.body(x + 0.1 * noise.to(x))


@problem
def generators_of_the_model(device):
    model = OwnNoise()
    return plain(
        device, model=model, options={"extra_state": [model.torch_noise, model.numpy_noise, model.python_noise]}
    )


@problem
def state_in_hooks(device):
    """A forward hook that keeps statistics on the module, and one on a parameter that changes its gradient."""
    model = mlp()
    model[0].register_buffer("norm", torch.zeros(()))

    def note(module, inputs, output):
        module.norm = 0.9 * module.norm + 0.1 * output.detach().norm()
        module.calls = getattr(module, "calls", 0) + 1

    model[0].register_forward_hook(note)
    setup = plain(device, model=model)
    model[2].weight.register_hook(lambda grad: grad / (1 + model[0].norm))
    return setup


class Flags(nn.Module):
    """Changes flags as it trains: unfreezes a layer, switches dropout off and on."""

    def __init__(self):
        super().__init__()
        self.body, self.dropout, self.count = mlp(), nn.Dropout(0.5), 0
        self.body[0].requires_grad_(False)

    def forward(self, x):
        self.count += 1
        self.body[0].requires_grad_(self.count > 2)
        self.dropout.train(self.count % 2 == 0)
        return self.body(self.dropout(x))


@problem
def changing_flags(device):
    return plain(device, model=Flags())


def _normed(device, normalise):
    model = mlp()
    normalise(model[0])
    return plain(device, model=model)


@problem
def spectral_norm(device):
    return _normed(device, parametrizations.spectral_norm)


@problem
def old_spectral_norm(device):
    return _normed(device, nn.utils.spectral_norm)


@problem
def weight_norm(device):
    return _normed(device, parametrizations.weight_norm)


@problem
def old_weight_norm(device):
    """The old hook keeps the weight as a plain attribute."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return _normed(device, nn.utils.weight_norm)


class Arc(nn.Module):
    """A criterion with a parameter and buffers: cosine to class centres, with a margin that adapts."""

    def __init__(self):
        super().__init__()
        self.centers = nn.Parameter(torch.randn(3, 4))
        self.register_buffer("margin", torch.tensor(0.1))

    def forward(self, x, targets):
        cosine = F.normalize(x) @ F.normalize(self.centers).T
        self.margin.mul_(0.9).add_(0.01 * cosine.detach().mean())
        return F.cross_entropy(8 * (cosine - self.margin * F.one_hot(targets, 3)), targets)


@problem
def criterion_with_parameters(device):
    criterion = Arc().to(device)

    def optimizer(model):
        return torch.optim.SGD([*model.parameters(), *criterion.parameters()], lr=0.1, momentum=0.9)

    return plain(device, model=mlp(classes=4), optimizer=optimizer, criterion=criterion)


# Optimizers


@problem
def lbfgs(device):
    return plain(
        device,
        optimizer=lambda model: torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3, history_size=3),
        lrs=(1e-3, 1e-1),
    )


@problem
def lbfgs_tensor_rate(device):
    """Its state may hold the very tensor of the group."""
    return plain(
        device,
        optimizer=lambda model: torch.optim.LBFGS(model.parameters(), lr=torch.tensor(0.1), max_iter=2),
        lrs=(1e-3, 1e-1),
    )


class SAM(torch.optim.Optimizer):
    """Sharpness-aware minimization with another optimizer inside, written as its best known implementation."""

    def __init__(self, params, base, rho=0.05, **options):
        super().__init__(params, {"rho": rho, **options})
        self.base_optimizer = base(self.param_groups, **options)
        self.param_groups = self.base_optimizer.param_groups

    @torch.no_grad()
    def first_step(self):
        held = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.stack([p.grad.norm() for p in held]).norm()
        for p in held:
            self.state[p]["old"] = p.detach().clone()
            p.add_(p.grad * self.param_groups[0]["rho"] / (norm + 1e-12))

    @torch.no_grad()
    def second_step(self):
        for p in self.state:
            p.copy_(self.state[p]["old"])
        self.base_optimizer.step()

    @torch.no_grad()
    def step(self, closure=None):
        assert closure is not None, "Sharpness Aware Minimization requires closure, but it was not provided"
        self.first_step()
        torch.enable_grad()(closure)()
        self.second_step()


@problem
def sharpness_aware(device):
    return plain(
        device,
        model=nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.2), nn.ReLU(), nn.Linear(8, 3)),
        optimizer=lambda model: SAM(model.parameters(), torch.optim.SGD, lr=0.1, momentum=0.9),
    )


def _two_groups(rate):
    def optimizer(model):
        groups = [{"params": model[0].parameters()}, {"params": model[2].parameters()}]
        rates = [torch.tensor(1e-2), torch.tensor(1e-3)] if rate is None else [rate, rate]
        for group, lr in zip(groups, rates, strict=True):
            group["lr"] = lr
        return torch.optim.Adam(groups, lr=rates[0], foreach=False)

    return optimizer


@problem
def tensor_rates(device):
    return plain(device, optimizer=_two_groups(None))


@problem
def shared_tensor_rate(device):
    """One tensor is the rate of all groups and the default."""
    return plain(device, optimizer=_two_groups(torch.tensor(1e-2)))


@problem
def different_rates_while_warming_up(device):
    """All rates are 0, as a warm-up left them; `initial_lr` tells the groups apart."""
    setup = plain(device, optimizer=_two_groups(None))
    setup.scheduler = torch.optim.lr_scheduler.LambdaLR(setup.optimizer, lambda step: min(step / 10, 1.0))
    return setup


@problem
def fused_adamw(device):
    return plain(device, optimizer=lambda model: torch.optim.AdamW(model.parameters(), fused=True))


@problem
def fused_sgd(device):
    return plain(device, optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, fused=True))


@problem
def foreach_adam(device):
    return plain(device, optimizer=lambda model: torch.optim.Adam(model.parameters(), amsgrad=True, foreach=True))


@problem
def capturable_adam(device):
    """On a GPU only: torch refuses to step a capturable optimizer on a CPU."""
    return plain(
        device,
        optimizer=lambda model: torch.optim.Adam(
            model.parameters(), lr=torch.tensor(1e-3, device=device), capturable=device.type != "cpu"
        ),
    )


class Lookahead(torch.optim.Optimizer):
    """An optimizer of the user's own: nested state, changing attributes, an inner list that grows."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, {"lr": lr})
        self.calls = 0
        self.rates = []

    @torch.no_grad()
    def step(self, closure=None):
        self.calls += 1
        for group in self.param_groups:
            self.rates.append(float(group["lr"]))
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state.update(slow=p.clone(), past=deque(maxlen=2), inner={"count": 0, "norms": []})
                state["inner"]["count"] += 1
                state["inner"]["norms"].append(p.grad.norm())
                state["past"].append(p.grad.clone())
                p.sub_(group["lr"] * sum(state["past"]) / len(self.rates))
                if state["inner"]["count"] % 2 == 0:
                    state["slow"].lerp_(p, 0.5)
                    p.copy_(state["slow"])


@problem
def own_optimizer(device):
    return plain(device, optimizer=lambda model: Lookahead(model.parameters()), lrs=(1e-3, 1.0))


@problem
def hooks_of_the_optimizer(device):
    """A hook before the step and one after it, which counts in the optimizer's own attributes."""
    setup = plain(device)

    def count(optimizer, args, kwargs):
        optimizer.calls = getattr(optimizer, "calls", 0) + 1

    setup.optimizer.register_step_pre_hook(count)
    setup.optimizer.register_step_post_hook(count)
    return setup


# Precision, compilation, averages, several optimizers


@problem
def grad_scaler(device):
    return plain(device, options={"grad_scaler": torch.amp.GradScaler(device.type)})


@problem
def grad_scaler_clipping(device):
    """The first scale overflows, so that it has to be found first; the steps are fused."""
    return plain(
        device,
        optimizer=lambda model: torch.optim.AdamW(model.parameters(), fused=True),
        criterion=lambda outputs, targets: 1e3 * F.cross_entropy(outputs, targets),
        options={
            "grad_scaler": torch.amp.GradScaler(device.type, init_scale=2.0**127, growth_interval=2),
            "max_grad_norm": 1.0,
        },
    )


@problem
def grad_scaler_fused(device):
    """Fused and not clipped: the optimizer itself unscales, through attributes that the scaler leaves on it."""
    return plain(
        device,
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, fused=True),
        options={"grad_scaler": torch.amp.GradScaler(device.type, init_scale=2.0**10, growth_interval=3)},
    )


@problem
def bfloat16(device):
    return _on_images(device, _cnn(), options={"autocast": torch.bfloat16})


@problem
def compiled(device):
    """Traced by dynamo and autograd, run by torch's own kernels."""
    return plain(device, model=torch.compile(mlp(), backend="aot_eager"))


@problem
def compiled_in_place(device):
    model = mlp()
    model.compile(backend="eager")
    return plain(device, model=model)


def _averaged(device, **options):
    setup = plain(device, model=nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)))
    average = AveragedModel(setup.model, **options)

    def step(batch):
        inputs, targets = batch
        setup.optimizer.zero_grad()
        # The average takes part, so that a training from another average has another loss.
        loss = setup.criterion(setup.model(inputs), targets)
        loss = loss + 0.1 * F.mse_loss(setup.model(inputs), average(inputs).detach())
        loss.backward()
        setup.optimizer.step()
        average.update_parameters(setup.model)
        return loss

    return Setup(
        model=setup.model,
        optimizer=setup.optimizer,
        loader=setup.loader,
        step=step,
        options={"extra_state": [average]},
        more={"average": average},
    )


@problem
def averaged_model(device):
    return _averaged(device)


@problem
def averaged_model_of_buffers(device):
    return _averaged(device, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)


class History:
    """Anything with a `state_dict`."""

    def __init__(self):
        self.scale = 1.0

    def state_dict(self):
        return {"scale": self.scale}

    def load_state_dict(self, state):
        self.scale = state["scale"]


@problem
def gan(device):
    """Two networks, two optimizers, one of which is swept; noise from a generator of its own."""
    generator, critic = mlp(4, 6).to(device), mlp(6, 1).to(device)
    optimizer = torch.optim.Adam(generator.parameters(), lr=1e-3, betas=(0.5, 0.9))
    critics = torch.optim.RMSprop(critic.parameters(), lr=1e-3)
    noise, history = torch.Generator().manual_seed(3), History()

    def step(batch):
        real, _ = batch
        fake = generator(torch.randn(len(real), 4, generator=noise).to(real))
        critics.zero_grad()
        (F.softplus(-critic(real)).mean() + F.softplus(critic(fake.detach())).mean()).backward()
        critics.step()
        optimizer.zero_grad()
        loss = history.scale * F.softplus(-critic(fake)).mean()
        loss.backward()
        optimizer.step()
        history.scale *= 0.99
        return loss.detach()

    return Setup(
        model=generator,
        optimizer=optimizer,
        loader=DataLoader(vectors(), batch_size=8, shuffle=True),
        step=step,
        options={"extra_state": [critic, critics, noise, history]},
        more={"critic": critic, "critics": critics, "noise": noise, "history": history},
    )


# State in ordinary objects and in functions: nothing here is handed over as extra_state


class RunningMean:
    """Normalises by a running mean, as people write it for reinforcement learning: no module, no state_dict."""

    def __init__(self, size):
        self.mean, self.count, self.history = torch.zeros(size), 0, []

    def __call__(self, x):
        self.count += 1
        self.mean = self.mean + (x.detach().mean(0) - self.mean) / self.count  # a new tensor each time
        self.history.append(float(self.mean.sum()))
        return x - self.mean


class SlottedMean:
    """The same with slots and in place, and with a counter object of its own."""

    __slots__ = ("counter", "mean", "spread")

    def __init__(self, size):
        self.mean, self.counter = torch.zeros(size), Counter()

    def __call__(self, x):
        self.counter.n += 1
        self.mean.lerp_(x.detach().mean(0), 1 / self.counter.n)
        self.spread = x.detach().std()  # not set before
        return (x - self.mean) / self.spread


class Counter:
    def __init__(self):
        self.n = 0


class Normalised(nn.Module):
    def __init__(self, *normalisers):
        super().__init__()
        self.body, self.normalisers = mlp(), normalisers

    def forward(self, x):
        for normalise in self.normalisers:
            x = normalise(x)
        return self.body(x)


@problem
def ordinary_objects(device):
    """A running mean in an attribute of a module, one with slots, and a cycle of objects."""
    model = Normalised(RunningMean(6), SlottedMean(6))
    first, second = model.normalisers
    first.other, second.counter.owner = second, first
    return plain(device, model=model)


@problem
def closure_and_defaults(device):
    """A loss function that counts in a nonlocal, and keeps lists in its closure, its defaults and its attributes."""
    count, weights, criterion = 0, [1.0], nn.CrossEntropyLoss()

    def loss_fn(model, batch, history=[], *, options={"scale": 1.0}):  # noqa: B006 - shared defaults are what is tested
        nonlocal count
        count += 1
        weights.append(0.9 * weights[-1])
        history.append(count)
        options["scale"] *= 1.01
        loss_fn.calls = getattr(loss_fn, "calls", 0) + 1
        scale = options["scale"] * weights[-1] + 0.01 * (len(history) + loss_fn.calls)
        return scale * criterion(model(batch[0]), batch[1])

    return plain(device, criterion=None, loss_fn=loss_fn)


def _scaled_loss(criterion, counters, outputs, targets, *, counter):
    for each in (*counters, counter):
        each.n += 1
    return (1 + 0.1 * counter.n + 0.01 * sum(each.n for each in counters)) * criterion(outputs, targets)


@problem
def partial_function(device):
    criterion = functools.partial(
        functools.partial(_scaled_loss, nn.CrossEntropyLoss()), [Counter()], counter=Counter()
    )
    return plain(device, criterion=criterion)


class Warming:
    """A criterion that is an ordinary callable object."""

    def __init__(self):
        self.calls, self.losses = 0, deque(maxlen=3)

    def __call__(self, outputs, targets):
        self.calls += 1
        loss = F.cross_entropy(outputs, targets)
        self.losses.append(loss.detach())
        return loss * min(self.calls / 5, 1.0) + 0.1 * sum(self.losses)


@problem
def callable_object(device):
    return plain(device, criterion=Warming())


class Average:
    """A moving average of the weights in a plain dict, swapped by reference."""

    def __init__(self, model):
        self.shadow = {name: p.detach().clone() for name, p in model.named_parameters()}
        self.updates = 0

    def update(self, model):
        self.updates += 1
        for name, p in model.named_parameters():
            self.shadow[name] = self.shadow[name].lerp(p.detach(), 0.1)


class OwnTrainer:
    """A trainer as people write it: model, two optimizers, scheduler, average, noise and counters in one object."""

    def __init__(self, device):
        self.model, self.critic = mlp().to(device), mlp(3, 1).to(device)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        self.critics = torch.optim.Adam(self.critic.parameters(), lr=1e-2)
        self.scheduler = torch.optim.lr_scheduler.ExponentialLR(self.critics, 0.9)
        self.loader = DataLoader(vectors(), batch_size=8, shuffle=True)
        self.average, self.rng = Average(self.model), np.random.RandomState(3)
        self.stats = {"steps": 0, "losses": []}

    def step(self, batch):
        x, y = batch
        outputs = self.model(x + 0.1 * float(self.rng.rand()))
        self.critics.zero_grad()
        (self.critic(outputs.detach()) - 1).square().mean().backward()
        self.critics.step()
        self.scheduler.step()
        self.optimizer.zero_grad()
        drift = sum((p - self.average.shadow[name]).square().sum() for name, p in self.model.named_parameters())
        loss = F.cross_entropy(outputs, y) + 0.1 * self.critic(outputs).mean() + 0.01 * drift
        loss.backward()
        self.optimizer.step()
        self.average.update(self.model)
        self.stats["steps"] += 1
        self.stats["losses"].append(loss.item())
        return loss.detach() + 0.01 * len(self.stats["losses"])


@problem
def method_of_an_own_trainer(device):
    trainer = OwnTrainer(device)
    return Setup(
        model=trainer.model,
        optimizer=trainer.optimizer,
        loader=trainer.loader,
        step=trainer.step,
        more={"trainer": trainer, "critic": trainer.critic},
    )


@problem
def state_behind_hooks(device):
    """Hooks of a module, a parameter and the optimizer that keep state in closures and objects."""
    setup = plain(device)
    counter, scales = Counter(), [1.0]

    def scale(*_):
        scales.append(0.99 * scales[-1])

    class Clip:
        def __init__(self):
            self.norms = []

        def __call__(self, grad):
            self.norms.append(float(grad.norm()))
            return grad * scales[-1] / (1 + 0.1 * len(self.norms) + 0.01 * counter.n)

    def count(optimizer, args, kwargs):
        counter.n += 1

    setup.model[0].register_forward_hook(scale)
    setup.model[2].weight.register_hook(Clip())
    setup.optimizer.register_step_post_hook(count)
    return setup


class SharedNoise(nn.Module):
    """Draws from a generator that is an attribute of its class."""

    def __init__(self):
        super().__init__()
        type(self).rng = np.random.RandomState(2)
        self.body = mlp()

    def forward(self, x):
        return self.body(x + 0.1 * self.rng.randn())


@problem
def generator_of_a_class(device):
    return plain(device, model=SharedNoise())


# Loaders


class Disturbing(Dataset):
    """Disturbs its samples by transforms that draw from generators of their own."""

    def __init__(self, data, *transforms):
        self.data, self.transforms = data, list(transforms)

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        x, y = self.data[index]
        for transform in self.transforms:
            x = transform(x)
        return x, y


class Jitter:
    def __init__(self, rng):
        self.R = rng

    def __call__(self, x):
        return x + 0.1 * float(self.R.uniform(-1, 1))


class Reseeding(Jitter):
    """Binds its attribute to a new generator at every call, as MONAI's `set_random_state` does."""

    def __call__(self, x):
        self.R = type(self.R)(self.R.randint(0, 1000))
        return super().__call__(x)


class LateJitter(Jitter):
    """Makes its generator on its first call."""

    def __init__(self):
        super().__init__(None)

    def __call__(self, x):
        self.R = np.random.default_rng(5) if self.R is None else self.R
        return super().__call__(x)


@problem
def generators_in_the_data_set(device):
    data = Disturbing(
        vectors(),
        Jitter(np.random.RandomState(1)),
        Jitter(np.random.default_rng(1)),
        functools.partial(Jitter.__call__, Jitter(random.Random(1))),
        Reseeding(np.random.RandomState(1)),
        Reseeding(random.Random(1)),
        LateJitter(),
    )
    return plain(device, DataLoader(data, batch_size=8, shuffle=True))


@problem
def generator_of_the_collate_function(device):
    rng = np.random.default_rng(2)

    def collate(samples):
        x, y = torch.utils.data.default_collate(samples)
        return x * (1 + 0.1 * rng.normal()), y

    return plain(device, DataLoader(vectors(), batch_size=8, shuffle=True, collate_fn=collate))


class ReshufflingLoader:
    """Makes a new generator from the old one at every epoch, as fastai's loader does."""

    def __init__(self, data):
        self.dataset, self.rng = data, random.Random(1)

    def __iter__(self):
        self.rng = random.Random(self.rng.randint(0, 2**32 - 1))
        order = self.rng.sample(range(len(self.dataset)), len(self.dataset))
        for start in range(0, len(order), 8):
            yield torch.utils.data.default_collate([self.dataset[index] for index in order[start : start + 8]])


@problem
def new_generator_at_each_epoch(device):
    return plain(device, ReshufflingLoader(vectors()))


class LegacySampler(Sampler):
    """Shuffles with a `RandomState`."""

    def __init__(self, size):
        self.size, self.random = size, np.random.RandomState(5)

    def __iter__(self):
        return iter(self.random.permutation(self.size).tolist())

    def __len__(self):
        return self.size


@problem
def legacy_sampler(device):
    return plain(device, DataLoader(vectors(), batch_size=8, sampler=LegacySampler(32)))


@problem
def own_generator(device):
    return plain(device, DataLoader(vectors(), batch_size=8, shuffle=True, generator=torch.Generator().manual_seed(4)))


@problem
def weighted_sampler(device):
    sampler = WeightedRandomSampler(torch.rand(32).tolist(), 32, generator=torch.Generator().manual_seed(4))
    return plain(device, DataLoader(vectors(), batch_size=8, sampler=sampler))


@problem
def epoch_sampler(device):
    return plain(device, DataLoader(vectors(), batch_size=8, sampler=EpochSampler(32)))


@problem
def epoch_sampler_in_batches(device):
    batches = BatchSampler(EpochSampler(32), batch_size=8, drop_last=True)
    return plain(device, DataLoader(vectors(), batch_sampler=batches))


@problem
def bucket_sampler(device):
    return plain(device, DataLoader(vectors(), batch_sampler=BucketSampler(32)))


@problem
def augmented(device):
    return plain(device, DataLoader(Augmented(vectors()), batch_size=8, shuffle=True))


@problem
def iterable_data_set(device):
    return plain(device, DataLoader(Stream(), batch_size=8))


def _with_workers(device, **options):
    return plain(device, DataLoader(Augmented(vectors()), batch_size=8, shuffle=True, num_workers=1, **options))


@problem
def workers(device):
    return _with_workers(device)


@problem
def persistent_workers(device):
    return _with_workers(device, persistent_workers=True)


@problem
def persistent_workers_own_generator(device):
    return _with_workers(device, persistent_workers=True, generator=torch.Generator().manual_seed(4))
