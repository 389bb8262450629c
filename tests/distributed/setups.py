"""A training setup for each kind of parallel model, built alike on every rank from one seed."""

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from lrfinder import LRFinder

HAS_FSDP = torch.__version__ >= "2.7"  # FSDP2 on the CPU fails in torch itself before
WIDTH = 24
CLASSES = 4


class Block(nn.Module):
    """A layer with weights; unless it is plain, with buffers and a random mask as well."""

    def __init__(self, plain):
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)
        self.norm = nn.Identity() if plain else nn.BatchNorm1d(WIDTH)
        self.dropout = nn.Dropout(0.0 if plain else 0.1)

    def forward(self, x):
        return x + self.dropout(torch.tanh(self.norm(self.linear(x))))


class Net(nn.Module):
    """Some blocks and a head; `fault(place)` is called on the way, for tests to raise from."""

    def __init__(self, plain=False):
        super().__init__()
        self.blocks = nn.ModuleList([Block(plain) for _ in range(5)])
        self.head = nn.Linear(WIDTH, CLASSES)
        self.calls = 0
        self.fault = None

    def forward(self, x):
        self.calls += 1
        for index, block in enumerate(self.blocks):
            if index == 2 and self.fault is not None:
                x = self.fault(x)
            x = block(x)
        return self.head(x)


def dataset(size=512):
    generator = torch.Generator().manual_seed(7)
    inputs = torch.randn(size, WIDTH, generator=generator)
    targets = (inputs @ torch.randn(WIDTH, CLASSES, generator=generator)).argmax(1)
    return TensorDataset(inputs, targets)


class Setup:
    """Model, optimizer and loader; `kind` is single, ddp, view (with gradients as views of its
    buckets), hook (with one that compresses them) or fsdp.
    """

    def __init__(self, kind="ddp", batch=8, size=512, optimizer=torch.optim.SGD, plain=False):
        torch.manual_seed(3)
        rank, world_size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        self.net = Net(plain)
        self.model = wrap(self.net, kind)
        options = {"momentum": 0.9} if optimizer is torch.optim.SGD else {}
        self.optimizer = optimizer(self.model.parameters(), lr=0.05, **options)
        data = dataset(size)
        self.sampler = DistributedSampler(data, world_size, rank, shuffle=True, seed=5)
        self.loader = DataLoader(data, batch_size=batch, sampler=self.sampler)
        self.criterion = nn.CrossEntropyLoss()
        torch.manual_seed(4 + rank)  # dropout differs between ranks

    def train(self, steps, epoch=3):
        """Train as a user would; return the losses of this rank."""
        losses = []
        self.sampler.set_epoch(epoch)
        for _, (inputs, targets) in zip(range(steps), self.loader, strict=False):
            self.optimizer.zero_grad()
            loss = self.criterion(self.model(inputs), targets)
            loss.backward()
            self.optimizer.step()
            losses.append(loss.item())
        return losses

    def finder(self, **options):
        if not {"loss_fn", "step"} & set(options):
            options["criterion"] = options.get("criterion", self.criterion)
        return LRFinder(self.model, self.optimizer, **options)

    def find(self, loader=None, finder=None, **options):
        options = {"start_lr": 1e-4, "end_lr": 0.1, "num_iter": 8, "progress": False, **options}
        return (finder or self.finder()).find(self.loader if loader is None else loader, **options)

    def bits(self):
        """Return the bits of everything trained, this rank's shards where it has shards."""
        found = [*self.model.parameters(), *self.model.buffers()]
        found += [value for state in self.optimizer.state.values() for value in state.values()]
        locals_ = [getattr(value, "_local_tensor", value) for value in found if isinstance(value, torch.Tensor)]
        return [value.detach().clone().contiguous().view(-1).view(torch.uint8).tolist() for value in locals_]


def wrap(net, kind):
    if kind == "single":
        return net
    if kind == "fsdp":
        from torch.distributed.fsdp import fully_shard

        for block in net.blocks:
            fully_shard(block)
        return fully_shard(net)
    # Small buckets, so that there are several, and that they change when they are rebuilt.
    model = DistributedDataParallel(net, bucket_cap_mb=0.004, gradient_as_bucket_view=kind == "view")
    if kind == "hook":
        from torch.distributed.algorithms.ddp_comm_hooks import default_hooks

        model.register_comm_hook(None, default_hooks.fp16_compress_hook)
    return model
