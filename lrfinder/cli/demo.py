"""`lrfinder demo`: find a learning rate for a small CNN on handwritten digits, train with it and with the usual one."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer
from torch.utils.data import DataLoader, TensorDataset

from lrfinder.errors import ArgumentError
from lrfinder.finder import LRFinder
from lrfinder.optim import make_scheduler
from lrfinder.result import RangeTestResult

__all__ = ["Digits", "accuracy_table", "compare", "find_lr", "load_digits", "one_thread", "small_cnn"]

BATCH_SIZE = 64
USUAL_LR = 1e-3  # Adam's default in torch


@dataclass(frozen=True, kw_only=True)
class Digits:
    """The handwritten digits of scikit-learn, split into 80 % for training and 20 % for testing.

    Args:
        train: Images, float32 (N, 1, 8, 8) in 0 to 1, with their labels, int64 (N,).
        test: The same for testing.
    """

    train: TensorDataset
    test: TensorDataset

    def loader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Return the training images in shuffled batches."""
        return DataLoader(self.train, batch_size=BATCH_SIZE, shuffle=True)


def load_digits() -> Digits:
    """Load the 1797 images that come with scikit-learn; nothing is downloaded.

    Returns:
        The images, split the same way every time.

    Raises:
        ArgumentError: scikit-learn is not installed.
    """
    try:
        datasets = import_module("sklearn.datasets")
        split = import_module("sklearn.model_selection").train_test_split
    except ModuleNotFoundError as error:
        raise ArgumentError(
            f'the demo needs the digits of scikit-learn, got "{error}"; run: pip install "lrfinder[demo]"'
        ) from None
    digits = datasets.load_digits()
    images = torch.from_numpy(digits.images.astype(np.float32) / 16)[:, None]
    labels = torch.from_numpy(digits.target.astype(np.int64))
    train, test = split(np.arange(len(labels)), test_size=0.2, stratify=digits.target, random_state=0)
    return Digits(train=TensorDataset(images[train], labels[train]), test=TensorDataset(images[test], labels[test]))


@contextmanager
def one_thread() -> Iterator[None]:
    """Within this context torch computes in one thread: as fast for images this small, with the same sums anywhere."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def small_cnn(seed: int) -> tuple[nn.Sequential, Adam]:
    """Build the model and its optimizer.

    Args:
        seed: For the weights, and for the dropout and the shuffling that follow.

    Returns:
        A CNN for 8 by 8 images in ten classes, and Adam with its default learning rate.
    """
    torch.manual_seed(seed)
    model = nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Dropout(0.25), nn.Linear(32 * 4 * 4, 64), nn.ReLU(), nn.Linear(64, 10)),
    )
    return model, Adam(model.parameters(), lr=USUAL_LR)


def find_lr(digits: Digits, epochs: int, *, progress: bool = True) -> RangeTestResult:
    """Run the range test for a training of some epochs.

    Args:
        digits: The data.
        epochs: How long the training will be.
        progress: Show a progress bar.

    Returns:
        Its result.
    """
    model, optimizer = small_cnn(seed=0)
    loader = digits.loader()
    finder = LRFinder(model, optimizer, nn.CrossEntropyLoss())
    return finder.find(loader, total_steps=epochs * len(loader), progress=progress)


def compare(digits: Digits, epochs: int, lrs: Iterable[float], seeds: Iterable[int]) -> dict[float, list[float]]:
    """Train with OneCycle at each of several peak learning rates, with everything else the same.

    Args:
        digits: The data.
        epochs: How long each training is.
        lrs: The peak learning rates to compare.
        seeds: One training per learning rate and seed.

    Returns:
        By learning rate, the test accuracy of each training, as a fraction.
    """
    seeds = list(seeds)
    return {lr: [_train(digits, epochs, lr, seed) for seed in seeds] for lr in lrs}


def _train(digits: Digits, epochs: int, lr: float, seed: int) -> float:
    model, optimizer = small_cnn(seed)
    loader = digits.loader()
    scheduler = make_scheduler(optimizer, "one_cycle", lr, total_steps=epochs * len(loader))
    model.train()
    for _ in range(epochs):
        for images, labels in loader:
            _step(model, optimizer, images, labels)
            scheduler.step()
    return _accuracy(model, digits.test)


def _step(model: nn.Module, optimizer: Optimizer, images: Tensor, labels: Tensor) -> None:
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(images), labels)
    loss.backward()  # type: ignore[no-untyped-call]  # torch has no types for it
    optimizer.step()


@torch.no_grad()
def _accuracy(model: nn.Module, test: TensorDataset) -> float:
    images, labels = test.tensors
    return float((model.eval()(images).argmax(dim=1) == labels).float().mean())


def accuracy_table(rows: Mapping[str, tuple[float, list[float]]]) -> str:
    """Write the accuracies below each other.

    Args:
        rows: By name, a peak learning rate and the accuracies of its trainings.

    Returns:
        A heading and a line per row.

    Example:
        >>> print(accuracy_table({"suggested": (0.01, [0.975, 0.985]), "usual": (0.001, [0.95, 0.96])}))
                       peak lr      mean    seed 0    seed 1
        suggested      1.0e-02    98.0 %    97.5 %    98.5 %
        usual          1.0e-03    95.5 %    95.0 %    96.0 %
    """
    width = max(map(len, rows))
    trainings = len(next(iter(rows.values()))[1])
    heads = ["mean", *(f"seed {seed}" for seed in range(trainings))]
    lines = [f"{'':<{width}}  {'peak lr':>11}" + "".join(f"{head:>10}" for head in heads)]
    for name, (lr, accuracies) in rows.items():
        shares = [sum(accuracies) / trainings, *accuracies]
        lines.append(f"{name:<{width}}  {lr:>11.1e}" + "".join(f"{100 * share:>8.1f} %" for share in shares))
    return "\n".join(lines)
