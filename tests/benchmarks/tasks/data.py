"""The data of the tasks: bundled with scikit-learn, made by mnist1d, or drawn here. Nothing is downloaded.

Every function draws from generators of its own, so that calling it leaves the global random state alone.
"""

from __future__ import annotations

import random
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "breast_cancer",
    "density_points",
    "diabetes",
    "digit_images",
    "digits",
    "iris",
    "linear_system",
    "mnist1d",
    "noisy_labels",
    "ratings",
    "sine_with_noise",
    "spirals",
    "teacher_pairs",
    "text_windows",
    "wine",
]

Pair = tuple[Tensor, Tensor]
Split = tuple[Pair, Pair]


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _split(inputs: Tensor, targets: Tensor, share: float = 0.75, seed: int = 0) -> Split:
    """A shuffled split into training and held-out pairs."""
    order = torch.randperm(len(inputs), generator=_generator(seed))
    cut = int(share * len(inputs))
    train, val = order[:cut], order[cut:]
    return (inputs[train], targets[train]), (inputs[val], targets[val])


def _standardised(values: np.ndarray) -> Tensor:
    return torch.tensor((values - values.mean(0)) / values.std(0), dtype=torch.float32)


@lru_cache
def digits() -> Split:
    """Handwritten digits, 8 x 8 pixels in [0, 1], flattened; ten classes."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    return _split(torch.tensor(pixels / 16.0, dtype=torch.float32), torch.tensor(labels))


@lru_cache
def digit_images(size: int = 8, channels: int = 1) -> Split:
    """The digits as images (channels, size, size) in [-1, 1]."""

    def images(pair: Pair) -> Pair:
        pixels = pair[0].view(-1, 1, 8, 8)
        if size != 8:
            pixels = F.interpolate(pixels, size=(size, size), mode="bilinear")
        return (2.0 * pixels - 1.0).repeat(1, channels, 1, 1), pair[1]

    train, val = digits()
    return images(train), images(val)


@lru_cache
def iris() -> Split:
    """150 flowers, four measurements, three classes."""
    from sklearn.datasets import load_iris

    inputs, labels = load_iris(return_X_y=True)
    return _split(_standardised(inputs), torch.tensor(labels), 0.6)


@lru_cache
def wine() -> Split:
    """178 wines, 13 measurements, three classes."""
    from sklearn.datasets import load_wine

    inputs, labels = load_wine(return_X_y=True)
    return _split(_standardised(inputs), torch.tensor(labels), 0.6)


@lru_cache
def breast_cancer() -> Split:
    """569 tumours, 30 correlated measurements, two classes."""
    from sklearn.datasets import load_breast_cancer

    inputs, labels = load_breast_cancer(return_X_y=True)
    return _split(_standardised(inputs), torch.tensor(labels))


@lru_cache
def diabetes() -> Split:
    """442 patients, ten measurements, a standardised number to predict."""
    from sklearn.datasets import load_diabetes

    inputs, targets = load_diabetes(return_X_y=True)
    return _split(_standardised(inputs), _standardised(targets))


@lru_cache
def mnist1d(seed: int = 42, noise: float = 0.25) -> Split:
    """MNIST-1D: ten classes of noisy, shifted curves of 40 points; 4000 to train on and 1000 held out."""
    from mnist1d.data import get_dataset_args, make_dataset

    before = random.getstate(), np.random.get_state()  # noqa: NPY002 - mnist1d seeds the global one
    arguments = get_dataset_args()
    arguments.seed, arguments.corr_noise_scale = seed, noise
    with torch.random.fork_rng(devices=[]):
        made = make_dataset(arguments)
    random.setstate(before[0])
    np.random.set_state(before[1])  # noqa: NPY002
    inputs, held_out = (torch.tensor(made[key], dtype=torch.float32) for key in ("x", "x_test"))
    return (inputs, torch.tensor(made["y"])), (held_out, torch.tensor(made["y_test"]))


@lru_cache
def spirals(turns: float = 1.5, size: int = 3000) -> Split:
    """Three intertwined spirals in the plane with a little noise."""
    rng = _generator(1)
    labels = torch.arange(size) % 3
    radius = torch.rand(size, generator=rng).sqrt()
    angle = 2 * torch.pi * (turns * radius + labels / 3)
    points = torch.stack([radius * angle.cos(), radius * angle.sin()], 1)
    return _split(points + 0.02 * torch.randn(size, 2, generator=rng), labels)


def noisy_labels(pair: Pair, share: float, classes: int = 10) -> Pair:
    """The pair with a share of its labels replaced by random ones."""
    rng = _generator(2)
    wrong = torch.randint(classes, pair[1].shape, generator=rng)
    return pair[0], torch.where(torch.rand(pair[1].shape, generator=rng) < share, wrong, pair[1])


@lru_cache
def linear_system(features: int = 100, condition: float = 1e3, noise: float = 0.1, size: int = 2000) -> Split:
    """A linear regression whose inputs' covariance has the given condition number."""
    rng = _generator(3)
    scales = torch.logspace(0, -0.5 * float(np.log10(condition)), features)
    rotation = torch.linalg.qr(torch.randn(features, features, generator=rng)).Q
    inputs = torch.randn(size, features, generator=rng) * scales @ rotation
    weights = torch.randn(features, generator=rng)
    targets = inputs @ weights + noise * torch.randn(size, generator=rng)
    return _split(inputs, targets)


@lru_cache
def teacher_pairs(size: int = 20_000, noise: float = 0.1) -> Split:
    """Regression on the outputs of a random two-layer network of 16 inputs."""
    rng = _generator(4)
    inputs = torch.randn(size, 16, generator=rng)
    first, second = torch.randn(16, 32, generator=rng) / 4, torch.randn(32, 1, generator=rng) / 4
    targets = torch.tanh(2 * inputs @ first) @ second
    return _split(inputs, targets + noise * torch.randn(size, 1, generator=rng), 0.95)


@lru_cache
def sine_with_noise(size: int = 4000) -> Split:
    """A curve whose noise grows along it: the spread is to be predicted too. Small targets make large densities."""
    rng = _generator(5)
    inputs = 2 * torch.rand(size, 1, generator=rng) - 1
    spread = 0.01 + 0.05 * (inputs + 1)
    targets = 0.3 * torch.sin(5 * inputs) + spread * torch.randn(size, 1, generator=rng)
    return _split(inputs, targets)


@lru_cache
def density_points(kind: str, size: int = 6000) -> tuple[Tensor, Tensor]:
    """Points of a narrow density in the plane ("moons" or "clusters"): train and held out. Its entropy is negative."""
    rng = _generator(6)
    noise = torch.randn(size, 2, generator=rng)
    if kind == "clusters":
        centres = 0.5 * torch.randn(12, 2, generator=rng)
        points = centres[torch.randint(12, (size,), generator=rng)] + 0.03 * noise
    else:
        angle = torch.pi * torch.rand(size, generator=rng)
        side = (torch.arange(size) % 2).float()
        x = torch.where(side > 0, 1 - angle.cos(), angle.cos())
        y = torch.where(side > 0, 0.5 - angle.sin(), angle.sin())
        points = 0.5 * torch.stack([x - 0.5, y - 0.25], 1) + 0.015 * noise
    return points[: size * 3 // 4], points[size * 3 // 4 :]


@lru_cache
def ratings(users: int = 400, items: int = 300, size: int = 30_000, rank: int = 4) -> Split:
    """Ratings of a low-rank table seen with noise; popular items come more often. Indices (N, 2), values (N,)."""
    rng = _generator(7)
    left, right = torch.randn(users, rank, generator=rng), torch.randn(items, rank, generator=rng)
    user = torch.randint(users, (size,), generator=rng)
    item = torch.multinomial(1.0 / torch.arange(5, items + 5), size, replacement=True, generator=rng)
    values = (left[user] * right[item]).sum(1) / rank**0.5 + 0.2 * torch.randn(size, generator=rng)
    return _split(torch.stack([user, item], 1), values, 0.9)


@lru_cache
def text_windows(language: int = 0, context: int = 32, size: int = 60_000) -> tuple[Tensor, Tensor]:
    """Windows (N, context + 1) of text in a made-up language of 27 letters: train and held out.

    Eighty words of random letters. Which word may follow which is drawn once for each language; few are likely.
    """
    rng = np.random.default_rng(8)
    words = ["".join(chr(97 + letter) for letter in rng.integers(26, size=rng.integers(2, 8))) for _ in range(80)]
    rng = np.random.default_rng([8, language])
    followers = rng.dirichlet(np.full(80, 0.05), size=80).cumsum(1)
    word, text = 0, []
    for chance in rng.random(size // 4):
        word = min(int(np.searchsorted(followers[word], chance)), 79)
        text.append(words[word])
    letters = np.frombuffer(" ".join(text).encode()[:size], dtype=np.uint8)
    tokens = torch.tensor(np.where(letters == 32, 26, letters.astype(np.int64) - 97))
    windows = tokens.unfold(0, context + 1, 8)
    cut = int(0.95 * len(windows))
    return windows[:cut], windows[cut + context // 8 + 1 :]
