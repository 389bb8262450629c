"""Convolutional networks and vision transformers on small images and curves."""

from __future__ import annotations

from tests.benchmarks.tasks.data import digit_images, mnist1d
from tests.benchmarks.tasks.losses import classify, reconstruct
from tests.benchmarks.tasks.networks import VisionTransformer, conv1d_net, conv_autoencoder, conv_net
from tests.benchmarks.tasks.task import Parts, task

__all__: list[str] = []


@task(
    optimizer="SGD",
    usual_lr=0.1,
    options={"momentum": 0.9, "nesterov": True, "weight_decay": 5e-4},
    total_steps=400,
    batch_size=64,
)
def digits_cnn_batchnorm_nesterov() -> Parts:
    train, val = digit_images()
    return Parts(model=conv_net(batch_norm=True), loss_fn=classify, train=train, val=val)


@task(optimizer="RMSprop", usual_lr=1e-3, total_steps=500, batch_size=64)
def digits_cnn_rmsprop() -> Parts:
    train, val = digit_images()
    return Parts(model=conv_net(batch_norm=False), loss_fn=classify, train=train, val=val)


@task(optimizer="Adam", usual_lr=1e-3, total_steps=1000, batch_size=64)
def mnist1d_cnn_adam() -> Parts:
    train, val = mnist1d()
    return Parts(model=conv1d_net(batch_norm=False), loss_fn=classify, train=train, val=val)


@task(optimizer="SGD", usual_lr=0.1, options={"momentum": 0.9}, total_steps=600, batch_size=64)
def mnist1d_cnn_batchnorm_sgd_momentum() -> Parts:
    train, val = mnist1d()
    return Parts(model=conv1d_net(batch_norm=True), loss_fn=classify, train=train, val=val)


@task(optimizer="SGD", usual_lr=0.1, total_steps=800, batch_size=32)
def mnist1d_cnn_sgd() -> Parts:
    train, val = mnist1d()
    return Parts(model=conv1d_net(batch_norm=False), loss_fn=classify, train=train, val=val)


@task(optimizer="AdamW", usual_lr=1e-3, options={"weight_decay": 0.05}, total_steps=500, batch_size=32)
def vit_adamw() -> Parts:
    train, val = digit_images()
    return Parts(model=VisionTransformer(), loss_fn=classify, train=train, val=val)


@task(optimizer="SGD", usual_lr=0.1, options={"momentum": 0.9}, total_steps=500, batch_size=32, max_grad_norm=1.0)
def vit_clipped_sgd_momentum() -> Parts:
    train, val = digit_images()
    return Parts(model=VisionTransformer(), loss_fn=classify, train=train, val=val)


@task(optimizer="Adamax", usual_lr=2e-3, total_steps=500, batch_size=64)
def conv_autoencoder_adamax() -> Parts:
    train, val = digit_images()
    return Parts(model=conv_autoencoder(), loss_fn=reconstruct, train=train, val=val)
