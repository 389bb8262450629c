"""Recurrent networks and small GPTs."""

from __future__ import annotations

from torch import nn

from tests.benchmarks.tasks.data import mnist1d, text_windows
from tests.benchmarks.tasks.losses import classify, next_token
from tests.benchmarks.tasks.networks import LanguageModel, RecurrentClassifier, RecurrentLanguageModel
from tests.benchmarks.tasks.task import Parts, task

__all__: list[str] = []


@task(optimizer="Adam", usual_lr=1e-3, total_steps=700, batch_size=32, max_grad_norm=1.0)
def mnist1d_gru_clipped_adam() -> Parts:
    train, val = mnist1d()
    return Parts(model=RecurrentClassifier(nn.GRU, 32), loss_fn=classify, train=train, val=val)


@task(optimizer="NAdam", usual_lr=2e-3, total_steps=400, batch_size=16)
def text_lstm_nadam() -> Parts:
    train, val = text_windows(context=24)
    return Parts(model=RecurrentLanguageModel(nn.LSTM, 48), loss_fn=next_token, train=(train,), val=(val[:256],))


@task(optimizer="SGD", usual_lr=0.1, options={"momentum": 0.9}, total_steps=500, batch_size=16)
def text_gru_sgd_momentum() -> Parts:
    train, val = text_windows(context=24)
    return Parts(model=RecurrentLanguageModel(nn.GRU, 48), loss_fn=next_token, train=(train,), val=(val[:256],))


@task(
    optimizer="AdamW",
    usual_lr=1e-3,
    options={"weight_decay": 0.1, "betas": (0.9, 0.95)},
    total_steps=800,
    batch_size=16,
)
def gpt_adamw() -> Parts:
    train, val = text_windows()
    return Parts(model=LanguageModel(), loss_fn=next_token, train=(train,), val=(val[:256],))


@task(optimizer="Muon", usual_lr=2e-2, total_steps=400, batch_size=16)
def gpt_muon() -> Parts:
    train, val = text_windows()
    return Parts(model=LanguageModel(32, bias=False), loss_fn=next_token, train=(train,), val=(val[:256],))


@task(optimizer="Adam", usual_lr=1e-3, total_steps=4000, batch_size=8)
def gpt_long_adam() -> Parts:
    train, val = text_windows(context=24)
    return Parts(model=LanguageModel(32, context=24), loss_fn=next_token, train=(train,), val=(val[:256],))
