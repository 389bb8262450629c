"""Small trainings drawn at random: data, network, loss, optimizer, batch size and length.

They are many and unlike each other, which is what a diagnosis has to learn from. All copies of a task train side by
side on the same batches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from sklearn import datasets
from torch import Tensor, nn
from torch.nn import functional as F

from tests.benchmarks.tasks.data import mnist1d

__all__ = ["RandomTask", "batches_of", "draw_task", "train_copies"]

Floats = npt.NDArray[np.float64]
Pair = tuple[Tensor, Tensor]
KINDS = (
    "iris", "wine", "cancer", "digits", "mnist1d", "diabetes", "friedman1", "friedman2", "friedman3", "moons",
    "circles", "classif", "gq", "scurve", "teacher", "waves", "sine", "spirals", "linear", "autoenc", "digitsreg",
    "text",
)  # fmt: skip
BUNDLED = {
    "iris": datasets.load_iris,
    "wine": datasets.load_wine,
    "cancer": datasets.load_breast_cancer,
    "digits": datasets.load_digits,
}
FRIEDMAN = {
    "friedman1": datasets.make_friedman1,
    "friedman2": datasets.make_friedman2,
    "friedman3": datasets.make_friedman3,
}
MOST_SAMPLES, MOST_HELD_OUT, CHECKS = 4000, 500, 16


@dataclass(frozen=True, kw_only=True)
class RandomTask:
    """A training drawn at random.

    Args:
        name: What was drawn, beginning with the seed.
        seed: The seed.
        train: Inputs and targets.
        val: Held-out inputs and targets.
        build: Makes the network.
        loss_fn: Of predictions and targets.
        optimizer: One of `OPTIMIZERS`.
        weight_decay: Its weight decay.
        batch_size: Samples in a batch.
        total_steps: Optimizer steps.
        constant_loss: The held-out loss of the best constant where targets come as they are, else None.
    """

    name: str
    seed: int
    train: Pair
    val: Pair
    build: Callable[[], nn.Module]
    loss_fn: Callable[[Tensor, Tensor], Tensor]
    optimizer: str
    weight_decay: float
    batch_size: int
    total_steps: int
    constant_loss: float | None


def draw_task(seed: int) -> RandomTask:
    """The training of a seed, the same every time."""
    rng = np.random.default_rng([77, seed])
    data = _Data(rng)
    kind = data.name.split()[0]
    inputs, outputs = data.train[0].shape[1], data.classes or data.train[1].shape[1]
    depth, width = int(rng.choice([0, 1, 1, 2, 2, 3, 4])), int(rng.choice([6, 12, 16, 24, 32, 48]))
    activation = str(rng.choice(["ReLU", "ReLU", "GELU", "Tanh", "SiLU"]))
    norm = rng.random() < 0.2
    density = not data.classes and not data.as_they_are and kind != "autoenc" and rng.random() < 0.12
    outputs *= 2 if density else 1
    if kind == "autoenc":
        depth, width = max(depth, 1), min(width, 16)
    conv = inputs >= 40 and rng.random() < 0.25 and kind != "autoenc"
    network = _Network(inputs, outputs, depth, width, activation, norm=norm, conv=conv)
    loss_name, loss_fn = _draw_loss(rng, classes=data.classes > 0, density=density)
    optimizer = str(rng.choice(OPTIMIZERS))
    decays = [0.01, 0.1] if optimizer == "AdamW" else [0, 0, 0, 1e-4, 1e-2]
    weight_decay = float(rng.choice(decays))
    count = len(data.train[0])
    batch_size = int(min(rng.choice([4, 8, 16, 16, 32, 32, 64, 128]), max(count // 2, 1)))
    steps = int(np.exp(rng.uniform(np.log(150), np.log(2000))))
    details = f"{loss_name} {optimizer} wd{weight_decay:g} b{batch_size} T{steps} n{count}"
    return RandomTask(
        name=f"{seed} {data.name} {network.name} {details}",
        seed=seed,
        train=data.train,
        val=data.val,
        build=network,
        loss_fn=loss_fn,
        optimizer=optimizer,
        weight_decay=weight_decay,
        batch_size=batch_size,
        total_steps=steps,
        constant_loss=data.constant_loss(loss_name, loss_fn) if data.as_they_are else None,
    )


# ---------------------------------------------------------------------------------------------------------------- data
class _Data:
    """Inputs and targets, in a random order, split in two."""

    def __init__(self, rng: np.random.Generator) -> None:
        seed = int(rng.integers(1 << 30))
        self.name = str(rng.choice(KINDS))
        own = np.random.default_rng(seed)
        size = int(np.exp(rng.uniform(np.log(150), np.log(3000))))
        noise = float(rng.choice([0, 0, 0.05, 0.1, 0.2]))
        x, y, self.classes = _pairs(self.name, rng, own, seed % 2**31, size, noise)
        x = np.asarray(x, np.float32)
        order = own.permutation(len(x))
        x, y = x[order][:MOST_SAMPLES], np.asarray(y)[order][:MOST_SAMPLES]
        cut = int(len(x) * 0.7)
        self.as_they_are = False
        if self.classes:
            y = y.astype(np.int64)
            if noise:
                wrong = own.random(len(y)) < noise
                y = np.where(wrong, own.integers(self.classes, size=len(y)), y)
        else:
            y = self._scaled(np.asarray(y, np.float32), cut, rng)
        self.train = torch.tensor(x[:cut]), torch.tensor(y[:cut])
        stop = cut + MOST_HELD_OUT
        self.val = torch.tensor(x[cut:stop]), torch.tensor(y[cut:stop])

    def _scaled(self, y: npt.NDArray[np.float32], cut: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
        y = y[:, None] if y.ndim == 1 else y
        if self.name == "autoenc":
            return y
        y = (y - y[:cut].mean(0)) / (y[:cut].std(0) + 1e-9)
        if rng.random() < 0.3:
            scale = float(10 ** rng.uniform(-1, 2.3))
            mean = float(scale * rng.choice([0, 1, 3, 5]))
            y = y * scale + mean
            self.as_they_are = True
            self.name += f" raw {mean:.3g} of {scale:.3g}"
        return y

    def constant_loss(self, loss_name: str, loss_fn: Callable[[Tensor, Tensor], Tensor]) -> float:
        targets, held_out = self.train[1], self.val[1]
        constant = targets.mean(0) if loss_name == "mse" else targets.median(0).values
        return float(loss_fn(constant.expand_as(held_out), held_out))


def _standardized(values: Floats) -> Floats:
    scaled: Floats = (values - values.mean(0)) / (values.std(0) + 1e-9)
    return scaled


def _pairs(  # noqa: C901 - one case for each kind of data
    kind: str, rng: np.random.Generator, own: np.random.Generator, state: int, n: int, noise: float
) -> tuple[npt.NDArray[np.generic], npt.NDArray[np.generic], int]:
    """Inputs, targets, and the number of classes, 0 for a regression."""
    if kind in BUNDLED:
        x, y = BUNDLED[kind](return_X_y=True)
        return (x / 16.0 if kind == "digits" else _standardized(x)), y, len(set(y))
    if kind == "mnist1d":
        (inputs, labels), _ = mnist1d()
        return inputs.numpy(), labels.numpy(), 10
    if kind == "diabetes":
        x, y = datasets.load_diabetes(return_X_y=True)
        return _standardized(x), y, 0
    if kind in FRIEDMAN:
        x, y = FRIEDMAN[kind](n_samples=n, noise=float(rng.choice([0, 0.1, 1.0])), random_state=state)
        return _standardized(x), y, 0
    if kind == "moons":
        return *datasets.make_moons(n, noise=0.1 + noise, random_state=state), 2
    if kind == "circles":
        return *datasets.make_circles(n, noise=0.05 + noise / 2, factor=0.6, random_state=state), 2
    if kind == "classif":
        classes, features = int(rng.integers(2, 8)), int(rng.integers(8, 40))
        x, y = datasets.make_classification(
            n, features, n_informative=8, n_classes=classes, class_sep=float(rng.uniform(0.5, 2)), random_state=state
        )
        return _standardized(x), y, classes
    if kind == "gq":
        features = int(rng.integers(2, 12))
        return *datasets.make_gaussian_quantiles(n_samples=n, n_features=features, n_classes=3, random_state=state), 3
    if kind == "scurve":
        return *datasets.make_s_curve(n, noise=0.05, random_state=state), 0
    if kind == "teacher":
        features = int(rng.integers(4, 32))
        x = own.normal(size=(n, features))
        hidden = np.tanh(2 * x @ own.normal(size=(features, 32)) / math.sqrt(features))
        return x, hidden @ own.normal(size=32) / 6 + 0.1 * own.normal(size=n), 0
    if kind == "waves":
        x = 2 * own.random((n, 2)) - 1
        first, second = rng.uniform(1, 7, 2)
        return x, np.sin(first * x[:, 0]) * np.cos(second * x[:, 1]) + 0.05 * own.normal(size=n), 0
    if kind == "sine":
        x = 2 * own.random((n, 1)) - 1
        return x, np.sin(rng.uniform(2, 10) * x[:, 0]) + 0.1 * own.normal(size=n), 0
    if kind == "spirals":
        y, radius = np.arange(n) % 3, np.sqrt(own.random(n))
        angle = 2 * np.pi * (rng.uniform(0.4, 1.6) * radius + y / 3)
        points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
        return points + 0.02 * own.normal(size=(n, 2)), y, 3
    if kind == "linear":
        features = int(rng.integers(5, 60))
        scales = np.logspace(0, -rng.uniform(0, 1.7), features)
        rotation, _ = np.linalg.qr(own.normal(size=(features, features)))
        x = own.normal(size=(n, features)) * scales @ rotation
        return x, x @ own.normal(size=features) + 0.1 * own.normal(size=n), 0
    if kind == "autoenc":
        pixels = datasets.load_digits().data / 16.0
        return pixels, pixels, 0
    if kind == "digitsreg":
        x, y = datasets.load_digits(return_X_y=True)
        return x / 16.0, y.astype(float), 0
    letters = 8  # text: the next letter of a chain, from the two before it
    chances = own.dirichlet(np.full(letters, 0.2), size=(letters, letters))
    text = [0, 1]
    for _ in range(n + 1):
        text.append(int(np.searchsorted(chances[text[-2], text[-1]].cumsum(), own.random() * 0.999)))
    coded, known = np.array(text), np.eye(letters)
    return np.concatenate([known[coded[:-2]], known[coded[1:-1]]], 1), coded[2:], letters


# ------------------------------------------------------------------------------------------------------ network, loss
class _Conv(nn.Module):
    """Two convolutions over the inputs as a row, and the mean of their features."""

    def __init__(self, outputs: int, width: int = 8) -> None:
        super().__init__()
        self.c1 = nn.Conv1d(1, width, 5, 2, 2)
        self.c2 = nn.Conv1d(width, width, 3, 2, 1)
        self.l = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.c2(F.relu(self.c1(x[:, None]))))
        out: Tensor = self.l(hidden.mean(-1))
        return out


class _Network:
    """Builds the network that was drawn."""

    def __init__(
        self, inputs: int, outputs: int, depth: int, width: int, activation: str, *, norm: bool, conv: bool
    ) -> None:
        self.inputs, self.outputs, self.depth, self.width = inputs, outputs, depth, width
        self.activation, self.norm, self.conv = activation, norm, conv
        self.name = f"d{depth}w{width}{activation}{'n' if norm else ''}{'conv' if conv else ''}"

    def __call__(self) -> nn.Module:
        if self.conv:
            return _Conv(self.outputs)
        layers: list[nn.Module] = []
        size = self.inputs
        for _ in range(self.depth):
            layers += [nn.Linear(size, self.width), *([nn.LayerNorm(self.width)] if self.norm else [])]
            layers.append(getattr(nn, self.activation)())
            size = self.width
        return nn.Sequential(*layers, nn.Linear(size, self.outputs))


def _draw_loss(
    rng: np.random.Generator, *, classes: bool, density: bool
) -> tuple[str, Callable[[Tensor, Tensor], Tensor]]:
    if classes:
        smoothing = 0.1 if rng.random() < 0.1 else 0.0
        return "ce", lambda out, y: F.cross_entropy(out, y, label_smoothing=smoothing)
    if density:
        return "nll", _density
    name = str(rng.choice(["mse", "mse", "mse", "l1", "huber"]))
    return name, {"mse": F.mse_loss, "l1": F.l1_loss, "huber": F.huber_loss}[name]


def _density(out: Tensor, y: Tensor) -> Tensor:
    mean, log_spread = out.chunk(2, 1)
    return (0.5 * ((y - mean) / log_spread.exp()) ** 2 + log_spread).mean()


# ------------------------------------------------------------------------------------------------------------ training
OPTIMIZERS = (
    "SGD", "SGDm", "SGDm", "Nesterov", "Adam", "Adam", "AdamW", "AdamW", "RMSprop", "Adagrad", "Lion",
)  # fmt: skip


def train_copies(task: RandomTask, lrs: Floats) -> tuple[Floats, Floats, float]:
    """Train one copy of a task for each column of learning rates, all from the same start on the same batches.

    Args:
        task: The task.
        lrs: Shape (steps, copies).

    Returns:
        Training losses, NaN from the first that is not finite, shape (steps, copies); validation losses at even
        distances, shape (CHECKS, copies); and the validation loss before the training.
    """
    torch.manual_seed(task.seed)
    model = task.build()
    names = [name for name, _ in model.named_parameters()]
    params = [p.detach()[None].expand(lrs.shape[1], *p.shape).clone() for p in model.parameters()]

    def loss(*tensors: Tensor) -> Tensor:
        here = dict(zip(names, tensors, strict=False))
        return task.loss_fn(torch.func.functional_call(model, here, (tensors[-2],)), tensors[-1])

    batched = torch.vmap(loss, in_dims=(*[0] * len(params), None, None))
    optimizer, batches = _Optimizer(task, params), batches_of(task)
    losses, val_losses = np.full(lrs.shape, np.nan), np.full((CHECKS, lrs.shape[1]), np.nan)
    checks = np.linspace(0, len(lrs), CHECKS + 1).round().astype(int)[1:].tolist()
    with torch.no_grad():
        before = float(batched(*params, *task.val)[0])
    for step, rates in enumerate(torch.tensor(lrs, dtype=torch.float32), start=1):
        leaves = [param.requires_grad_() for param in params]
        found = batched(*leaves, *next(batches))
        grads = torch.autograd.grad(found.sum(), leaves)
        params = [leaf.detach() for leaf in leaves]
        losses[step - 1] = found.detach().numpy()
        optimizer.step(params, grads, rates)
        if step in checks:
            with torch.no_grad():
                val_losses[checks.index(step)] = batched(*params, *task.val).numpy()
    losses[np.cumsum(~np.isfinite(losses), 0) > 0] = np.nan
    return losses, np.where(np.isfinite(val_losses), val_losses, np.nan), before


def batches_of(task: RandomTask) -> Iterator[Pair]:
    """The batches of a task, epoch after epoch."""
    inputs, targets = task.train
    generator = torch.Generator().manual_seed(1)
    while True:
        order = torch.randperm(len(inputs), generator=generator)
        for chosen in order.split(task.batch_size):
            if len(chosen) == task.batch_size:
                yield inputs[chosen], targets[chosen]


class _Optimizer:
    """The optimizers by their formulas, with a learning rate for each copy."""

    def __init__(self, task: RandomTask, params: list[Tensor]) -> None:
        self.name, self.decay, self.steps = task.optimizer, task.weight_decay, 0
        self.state = [(torch.zeros_like(param), torch.zeros_like(param)) for param in params]

    def step(self, params: list[Tensor], grads: tuple[Tensor, ...], lrs: Tensor) -> None:
        self.steps += 1
        for param, grad, state in zip(params, grads, self.state, strict=True):
            lr = lrs.view(-1, *[1] * (param.dim() - 1))
            if self.decay and self.name in {"AdamW", "Lion"}:
                param.mul_(1 - lr * self.decay)
            elif self.decay:
                grad = grad + self.decay * param
            param.sub_(lr * self._direction(grad, *state))

    def _direction(self, grad: Tensor, first: Tensor, second: Tensor) -> Tensor:
        if self.name == "SGD":
            return grad
        if self.name in {"SGDm", "Nesterov"}:
            first.mul_(0.9).add_(grad)
            return first if self.name == "SGDm" else grad + 0.9 * first
        if self.name == "RMSprop":
            second.mul_(0.99).addcmul_(grad, grad, value=0.01)
            return grad / (second.sqrt() + 1e-8)
        if self.name == "Adagrad":
            second.addcmul_(grad, grad)
            return grad / (second.sqrt() + 1e-10)
        if self.name == "Lion":
            direction = (first * 0.9 + grad * 0.1).sign()
            first.mul_(0.99).add_(grad, alpha=0.01)
            return direction
        first.mul_(0.9).add_(grad, alpha=0.1)
        second.mul_(0.999).addcmul_(grad, grad, value=0.001)
        return first / (1 - 0.9**self.steps) / (second / (1 - 0.999**self.steps)).sqrt_().add_(1e-8)
