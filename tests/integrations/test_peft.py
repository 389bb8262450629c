"""LoRA adapters on a frozen base need nothing special."""

import pytest
import torch

peft = pytest.importorskip("peft", reason="needs peft: pip install 'lrfinder[peft]'")
transformers = pytest.importorskip("transformers", reason="needs transformers: pip install 'lrfinder[transformers]'")

from lrfinder import LRFinder, RestoreError  # noqa: E402
from lrfinder.integrations.transformers import find_lr  # noqa: E402
from lrfinder.snapshot.storage import StorageCopies  # noqa: E402
from tests.fingerprint import Fingerprint, bits, differences, process_state  # noqa: E402
from tests.integrations.test_transformers import assert_same, bert, build, gpt2, outcome, pad, parts, rows  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore::lrfinder.LRFinderWarning", "ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning"),  # peft asks transformers so
]

SWEEP = {"start_lr": 1e-4, "end_lr": 1e-1, "num_iter": 6, "progress": False}


def adapted(make=gpt2, **options):
    """Return a frozen model with LoRA adapters."""
    torch.manual_seed(0)
    kind = "CAUSAL_LM" if make is gpt2 else "SEQ_CLS"
    names = ["c_attn"] if make is gpt2 else ["query", "value"]
    config = peft.LoraConfig(
        r=2,
        lora_alpha=4,
        lora_dropout=0.1,
        target_modules=names,
        task_type=kind,
        fan_in_fan_out=make is gpt2,
        **options,
    )
    return peft.get_peft_model(make(), config)


def frozen(model):
    return {name: p for name, p in model.named_parameters() if not p.requires_grad}


@pytest.mark.parametrize("make", [gpt2, bert])
@pytest.mark.parametrize("snapshot_frozen", [True, False])
def test_a_trainer_with_adapters(make, snapshot_frozen, tmp_path):
    expected = outcome(build(tmp_path, model=lambda: adapted(make)))
    trainer = build(tmp_path, model=lambda: adapted(make))
    base = {name: bits(p) for name, p in frozen(trainer.model).items()}
    before, everything = process_state(), Fingerprint(**parts(trainer))
    result = find_lr(trainer, **SWEEP, snapshot_frozen=snapshot_frozen)
    assert len(result.lrs) == 6
    assert base
    assert base == {name: bits(p) for name, p in frozen(trainer.model).items()}
    assert differences(before, process_state()) == []
    assert differences(everything.values, Fingerprint(**parts(trainer)).values) == []
    assert_same(outcome(trainer), expected)


def loader():
    data = rows(16, length=9, labels="tokens")
    return torch.utils.data.DataLoader(data, batch_size=4, shuffle=True, collate_fn=pad)


def finder(model, **options):
    adapters = [p for p in model.parameters() if p.requires_grad]
    return LRFinder(model, torch.optim.AdamW(adapters, lr=1e-3), **options)


def test_only_adapters_learn_meanwhile():
    """Seen from inside of the sweep: the base's weights stand still, the adapters' move."""
    model = adapted()
    base = {name: bits(p) for name, p in frozen(model).items()}
    learning = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    moved, stood = [], []

    def look(index, lr, loss):
        named = dict(model.named_parameters())
        moved.append(any(not torch.equal(named[name], value) for name, value in learning.items()))
        stood.append(all(bits(named[name]) == value for name, value in base.items()))

    finder(model).find(loader(), **SWEEP, on_step=look)
    assert all(moved)
    assert all(stood)


def test_what_copying_no_frozen_weights_saves(monkeypatch):
    """All of the base: what is copied then is the adapters alone (and buffers), whatever the base's size."""
    copied = []
    monkeypatch.setattr(StorageCopies, "__init__", counting(StorageCopies.__init__, copied))
    model = adapted()
    size = sum(p.nbytes for p in {p.data_ptr(): p for p in frozen(model).values()}.values())
    adapters = sum(p.nbytes for p in model.parameters() if p.requires_grad)

    def bytes_copied(**options):
        copied.clear()
        finder(model, **options).find(loader(), **SWEEP)
        return sum(copied)

    whole, without = bytes_copied(), bytes_copied(snapshot_frozen=False)
    assert whole - without == size
    assert adapters <= without < adapters + 1024
    assert size > 10 * adapters


def counting(original, copied):
    def init(self, regions, *args):
        copied.append(sum(region.words.nbytes for region in regions))
        original(self, regions, *args)

    return init


def test_a_base_that_learns_after_all_is_noticed(tmp_path):
    """Without a copy it cannot be put back: the error names the tensor."""

    class Leaking(transformers.Trainer):
        def compute_loss(self, model, inputs, *args, **kwargs):
            with torch.no_grad():
                next(iter(frozen(model).values())).mul_(0.99)
            return super().compute_loss(model, inputs, *args, **kwargs)

    trainer = build(tmp_path, kind=Leaking, model=adapted)
    with pytest.raises(
        RestoreError, match=r"Frozen parameters were written to .*lm_head.weight.* Use `snapshot_frozen=True`"
    ):
        find_lr(trainer, **SWEEP, snapshot_frozen=False)
    trainer = build(tmp_path, kind=Leaking, model=adapted)
    everything = Fingerprint(**parts(trainer))
    find_lr(trainer, **SWEEP)
    assert differences(everything.values, Fingerprint(**parts(trainer)).values) == []


def test_adapters_in_another_precision_and_trained_heads(tmp_path):
    """bfloat16 forward passes; the classifier is trained whole, as a copy of the frozen one."""

    def model():
        return adapted(bert, modules_to_save=["classifier"])

    expected = outcome(build(tmp_path, model=model, bf16=True))
    trainer = build(tmp_path, model=model, bf16=True)
    find_lr(trainer, **SWEEP)
    assert_same(outcome(trainer), expected)


def wide():
    """Return a model whose adapters are large enough for 8-bit state: 4,096 numbers in a matrix."""
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=40, hidden_size=64, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    lora = peft.LoraConfig(r=64, target_modules=["query", "value"], task_type="SEQ_CLS")
    return peft.get_peft_model(transformers.BertForSequenceClassification(config), lora)


@pytest.mark.filterwarnings("default")  # of torchao
def test_adapters_with_8_bit_optimizer_state(tmp_path, monkeypatch):
    """Before a training, and between two, when there is 8-bit state."""
    pytest.importorskip("torchao", reason="needs torchao")
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)  # of the optimizer's step: takes a minute

    def train(trainer):
        trainer.train()
        state = [value for entry in trainer.optimizer.state.values() for value in entry.values()]
        assert any("8bit" in type(value).__name__ for value in state)
        return [bits(value) for value in [*trainer.model.parameters(), *state]]

    def trainer():
        return build(tmp_path, model=wide, optim="adamw_torch_8bit")

    plain, swept = trainer(), trainer()
    for seed in range(2):
        torch.manual_seed(seed)
        expected = train(plain)
        torch.manual_seed(seed)
        everything = Fingerprint(**parts(swept))
        find_lr(swept, **SWEEP)
        assert differences(everything.values, Fingerprint(**parts(swept)).values) == []
        assert train(swept) == expected
