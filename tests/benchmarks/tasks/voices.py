"""A pre-trained speaker encoder, with the weights that the package `resemblyzer` ships, and voices to tune it on.

The encoder is built here in plain torch, so that the task needs none of that package's own requirements. The voices are
made here: a pulse train through three resonances, which differ from speaker to speaker and from vowel to vowel.
"""

from __future__ import annotations

import math
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.benchmarks.tasks.losses import classify
from tests.benchmarks.tasks.task import Parts, Task, task

__all__ = ["VOICES", "SpeakerEncoder", "mel_energies", "speaker_encoder", "voices"]

VOICES: dict[str, Task] = {}

SAMPLE_RATE, WINDOW, HOP, MELS = 16_000, 400, 160, 40  # as the encoder was trained with
FRAMES = 32
SPEAKERS = 12
VOWELS = ((730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480), (570, 840, 2410))


# -------------------------------------------------------------------------------------------------------------- network
class SpeakerEncoder(nn.Module):
    """Three LSTM layers, a unit-length embedding, and a new linear head."""

    def __init__(self, classes: int, width: int = 256) -> None:
        super().__init__()
        self.lstm = nn.LSTM(MELS, width, 3, batch_first=True)
        self.linear = nn.Linear(width, width)
        self.head = nn.Linear(width, classes)

    def forward(self, energies: Tensor) -> Tensor:  # (N, frames, MELS) -> (N, classes)
        _, (hidden, _) = self.lstm(energies)
        return self.head(F.normalize(F.relu(self.linear(hidden[-1])), dim=1))


@lru_cache
def encoder_weights() -> dict[str, Tensor]:
    """The pre-trained tensors, without the two of the loss."""
    spec = find_spec("resemblyzer")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("The pre-trained speaker encoder comes with the package resemblyzer.")
    stored = torch.load(Path(spec.submodule_search_locations[0]) / "pretrained.pt", "cpu", weights_only=True)
    return {name: value for name, value in stored["model_state"].items() if not name.startswith("similarity")}


def speaker_encoder(classes: int) -> SpeakerEncoder:
    """The pre-trained network with a fresh head."""
    model = SpeakerEncoder(classes)
    head = {f"head.{name}": value for name, value in model.head.state_dict().items()}
    model.load_state_dict(encoder_weights() | head)
    return model


# ----------------------------------------------------------------------------------------------------------------- data
def mel_filters() -> Tensor:
    """Triangles of unit area on Slaney's mel scale, shape (MELS, WINDOW // 2 + 1)."""

    def hertz(mels: Tensor) -> Tensor:
        return torch.where(mels < 15, mels * 200 / 3, 1000 * torch.exp((mels - 15) * math.log(6.4) / 27))

    highest = 15 + 27 * math.log(SAMPLE_RATE / 2 / 1000) / math.log(6.4)
    edges = hertz(torch.linspace(0, highest, MELS + 2))
    bins = torch.linspace(0, SAMPLE_RATE / 2, WINDOW // 2 + 1)
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    return torch.minimum(rising, falling).clamp(min=0) * (2 / (edges[2:] - edges[:-2]))[:, None]


def mel_energies(waves: Tensor) -> Tensor:
    """The energy in each mel band over time, (N, samples) -> (N, frames, MELS)."""
    spectrum = torch.stft(waves, WINDOW, HOP, window=torch.hann_window(WINDOW), return_complex=True).abs() ** 2
    return (mel_filters() @ spectrum).transpose(1, 2)[:, :FRAMES]


def utterances(count: int, rng: torch.Generator, pitch: Tensor, tract: Tensor) -> tuple[Tensor, Tensor]:
    """Waves (count, samples) with their speakers: a speaker has a pitch in Hz and a length of the vocal tract."""
    speakers = torch.randint(SPEAKERS, (count,), generator=rng)
    seconds = torch.arange(FRAMES * HOP) / SAMPLE_RATE
    said = pitch[speakers] * (1 + 0.08 * torch.randn(count, generator=rng))
    glide = 1 + 0.3 * torch.randn(count, 1, generator=rng) * seconds
    phase = 2 * math.pi * said[:, None] * torch.cumsum(glide, 1) / SAMPLE_RATE
    vowels = torch.tensor(VOWELS, dtype=torch.float32)[torch.randint(len(VOWELS), (count,), generator=rng)]
    formants = vowels * tract[speakers, None] * (1 + 0.03 * torch.randn(count, 3, generator=rng))
    waves = torch.zeros(count, len(seconds))
    for harmonic in range(1, 31):
        frequency = harmonic * said
        gains = (1 / (1 + ((frequency[:, None] - formants) / 100) ** 2)).sum(1) / harmonic**0.5
        waves += torch.where(frequency < SAMPLE_RATE / 2, gains, 0.0)[:, None] * torch.sin(harmonic * phase)
    waves /= waves.std(1, keepdim=True)
    return 0.03 * (waves + 0.3 * torch.randn(waves.shape, generator=rng)), speakers


@lru_cache
def voices() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Mel energies (N, FRAMES, MELS) of twelve speakers: 1,600 to train on, 300 held out."""
    rng = torch.Generator().manual_seed(3)
    pitch = 90 * 2 ** (1.3 * torch.rand(SPEAKERS, generator=rng))
    tract = 0.85 + 0.35 * torch.rand(SPEAKERS, generator=rng)
    train, val = (utterances(count, rng, pitch, tract) for count in (1600, 300))
    return (mel_energies(train[0]), train[1]), (mel_energies(val[0]), val[1])


@task(registry=VOICES, optimizer="Adam", usual_lr=1e-4, total_steps=400, batch_size=8)
def speakers_all_layers_adam() -> Parts:
    """All layers of the encoder."""
    train, val = voices()
    return Parts(model=speaker_encoder(SPEAKERS), loss_fn=classify, train=train, val=val)
