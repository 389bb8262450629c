"""The networks of the tasks, small enough that a whole training takes seconds on one core."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = [
    "CouplingFlow",
    "LanguageModel",
    "LowRank",
    "MatrixFactorisation",
    "Mixture",
    "RecurrentClassifier",
    "RecurrentLanguageModel",
    "VisionTransformer",
    "add_low_rank",
    "conv1d_net",
    "conv_autoencoder",
    "conv_net",
    "mlp",
]


def mlp(sizes: Sequence[int], activation: type[nn.Module] = nn.ReLU, *, bias: bool = True) -> nn.Sequential:
    """Linear layers with an activation between them."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in zip(sizes[:-1], sizes[1:], strict=True):  # noqa: RUF007 - a change makes the truth stale
        layers += [nn.Linear(fan_in, fan_out, bias=bias), activation()]
    return nn.Sequential(*layers[:-1])


def conv_net(*, batch_norm: bool, width: int = 16, classes: int = 10) -> nn.Sequential:
    """Three convolutions on 8 x 8 images."""
    layers: list[nn.Module] = []
    for fan_in, fan_out, stride in ((1, width, 1), (width, 2 * width, 2), (2 * width, 2 * width, 2)):
        layers.append(nn.Conv2d(fan_in, fan_out, 3, stride=stride, padding=1, bias=not batch_norm))
        layers += [nn.BatchNorm2d(fan_out), nn.ReLU()] if batch_norm else [nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(8 * width, classes))


def conv1d_net(*, batch_norm: bool, width: int = 16, classes: int = 10) -> nn.Sequential:
    """Three convolutions on curves of 40 points."""
    layers: list[nn.Module] = [nn.Unflatten(1, (1, 40))]
    for fan_in, fan_out in ((1, width), (width, width), (width, width)):
        layers.append(nn.Conv1d(fan_in, fan_out, 5, stride=2, padding=2, bias=not batch_norm))
        layers += [nn.BatchNorm1d(fan_out), nn.ReLU()] if batch_norm else [nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(5 * width, classes))


def conv_autoencoder(width: int = 12, code: int = 10) -> nn.Sequential:
    """8 x 8 images through a code of a few numbers."""
    encoder = [
        nn.Conv2d(1, width, 3, 2, 1),
        nn.GELU(),
        nn.Conv2d(width, width, 3, 2, 1),
        nn.GELU(),
        nn.Flatten(),
        nn.Linear(4 * width, code),
    ]
    decoder = [
        nn.Linear(code, 4 * width),
        nn.GELU(),
        nn.Unflatten(1, (width, 2, 2)),
        nn.ConvTranspose2d(width, width, 4, 2, 1),
        nn.GELU(),
    ]
    return nn.Sequential(*encoder, *decoder, nn.ConvTranspose2d(width, 1, 4, 2, 1))


# ----------------------------------------------------------------------------------------------------------- sequences
class RecurrentClassifier(nn.Module):
    """A class from the last state of a recurrent network that reads a curve in chunks of two points."""

    def __init__(self, cell: type[nn.RNNBase], hidden: int, classes: int = 10) -> None:
        super().__init__()
        self.cell = cell(2, hidden, batch_first=True)
        self.head = nn.Linear(hidden, classes)

    def forward(self, curves: Tensor) -> Tensor:  # (N, 40) -> (N, classes)
        return self.head(self.cell(curves.unflatten(1, (-1, 2)))[0][:, -1])


class RecurrentLanguageModel(nn.Module):
    """The next letter from an LSTM or a GRU."""

    def __init__(self, cell: type[nn.RNNBase], hidden: int, vocabulary: int = 27) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, hidden)
        self.cell = cell(hidden, hidden, batch_first=True)
        self.head = nn.Linear(hidden, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:  # (N, L) -> (N, L, vocabulary)
        return self.head(self.cell(self.embedding(tokens))[0])


class Block(nn.Module):
    """A transformer block, normalised first; `bias=False` leaves matrices only, as Muon wants."""

    def __init__(self, width: int, heads: int, *, causal: bool, bias: bool = True) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.norm1, self.norm2 = (nn.LayerNorm(width, elementwise_affine=bias) for _ in range(2))
        self.qkv = nn.Linear(width, 3 * width, bias=bias)
        self.out = nn.Linear(width, width, bias=bias)
        self.up, self.down = nn.Linear(width, 4 * width, bias=bias), nn.Linear(4 * width, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:  # (N, L, width)
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class LanguageModel(nn.Module):
    """A small GPT."""

    def __init__(
        self, width: int = 48, depth: int = 2, context: int = 32, vocabulary: int = 27, *, bias: bool = True
    ) -> None:
        super().__init__()
        self.embedding, self.position = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        for table in (self.embedding, self.position):
            nn.init.normal_(table.weight, std=0.1)
        self.blocks = nn.Sequential(*(Block(width, 4, causal=True, bias=bias) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, elementwise_affine=bias)
        self.head = nn.Linear(width, vocabulary, bias=bias)

    def forward(self, tokens: Tensor) -> Tensor:  # (N, L) -> (N, L, vocabulary)
        x = self.embedding(tokens) + self.position.weight[: tokens.shape[1]]
        return self.head(self.norm(self.blocks(x)))


class VisionTransformer(nn.Module):
    """A small ViT on 8 x 8 images in patches of 2 x 2."""

    def __init__(self, width: int = 32, depth: int = 2, classes: int = 10) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 2, stride=2)
        self.position = nn.Parameter(0.02 * torch.randn(16, width))
        self.blocks = nn.Sequential(*(Block(width, 4, causal=False) for _ in range(depth)))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, classes))

    def forward(self, images: Tensor) -> Tensor:
        x = self.patches(images).flatten(2).transpose(1, 2) + self.position
        return self.head(self.blocks(x).mean(1))


# ----------------------------------------------------------------------------------------------- embeddings, densities
class MatrixFactorisation(nn.Module):
    """A rating as the product of two embeddings plus two biases."""

    def __init__(self, users: int, items: int, rank: int, *, sparse: bool) -> None:
        super().__init__()
        self.user, self.item = nn.Embedding(users, rank, sparse=sparse), nn.Embedding(items, rank, sparse=sparse)
        for table in (self.user, self.item):
            nn.init.normal_(table.weight, std=0.3)

    def forward(self, indices: Tensor) -> Tensor:  # (N, 2) -> (N,)
        return (self.user(indices[:, 0]) * self.item(indices[:, 1])).sum(1)


class CouplingFlow(nn.Module):
    """Affine coupling layers (RealNVP) on points of the plane; returns log densities."""

    def __init__(self, layers: int = 6, hidden: int = 32) -> None:
        super().__init__()
        self.nets = nn.ModuleList(mlp([1, hidden, hidden, 2], nn.Tanh) for _ in range(layers))

    def forward(self, points: Tensor) -> Tensor:  # (N, 2) -> (N,)
        kept, moved = points[:, :1], points[:, 1:]
        log_det = torch.zeros(len(points))
        for net in self.nets:
            scale, shift = net(kept).chunk(2, 1)
            moved = moved * scale.exp() + shift
            log_det = log_det + scale[:, 0]
            kept, moved = moved, kept
        squares = (kept**2 + moved**2)[:, 0]
        return log_det - 0.5 * squares - math.log(2 * math.pi)


class Mixture(nn.Module):
    """A mixture of Gaussians with free centres, spreads and weights; returns log densities."""

    def __init__(self, components: int = 24) -> None:
        super().__init__()
        self.centres = nn.Parameter(0.5 * torch.randn(components, 2))
        self.log_spreads = nn.Parameter(torch.full((components,), -1.0))
        self.logits = nn.Parameter(torch.zeros(components))

    def forward(self, points: Tensor) -> Tensor:  # (N, 2) -> (N,)
        squares = ((points[:, None] - self.centres) ** 2).sum(-1)
        densities = -0.5 * squares / (2 * self.log_spreads).exp() - 2 * self.log_spreads - math.log(2 * math.pi)
        return torch.logsumexp(densities + self.logits.log_softmax(0), 1)


# -------------------------------------------------------------------------------------------------------- fine-tuning
class LowRank(nn.Module):
    """LoRA: a frozen linear layer plus a trained product of two thin matrices that starts at zero."""

    def __init__(self, linear: nn.Linear, rank: int, scale: float = 2.0) -> None:
        super().__init__()
        self.linear, self.scale = linear.requires_grad_(False), scale
        self.down = nn.Parameter(torch.randn(rank, linear.in_features) / linear.in_features**0.5)
        self.up = nn.Parameter(torch.zeros(linear.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + self.scale * x @ self.down.T @ self.up.T


def add_low_rank(model: nn.Module, rank: int, among: Sequence[str]) -> None:
    """Freeze the model and put a `LowRank` around every linear layer with one of these names."""
    model.requires_grad_(False)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if name in among and isinstance(child, nn.Linear):
                setattr(module, name, LowRank(child, rank))
