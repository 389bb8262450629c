"""Trainers of other libraries that build on transformers' Trainer: find-then-train equals train."""

import os

import pytest
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")

transformers = pytest.importorskip("transformers", reason="needs transformers: pip install 'lrfinder[transformers]'")

from lrfinder.integrations.transformers import find_lr  # noqa: E402
from tests.fingerprint import Fingerprint, differences, process_state  # noqa: E402
from tests.integrations.test_transformers import assert_same, outcome, pad, parts  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("default"),  # these libraries warn of each other's changes
    pytest.mark.filterwarnings("ignore::lrfinder.LRFinderWarning"),
]

SWEEP = {"start_lr": 1e-5, "end_lr": 1e-2, "num_iter": 6, "progress": False}
WORDS = ["red", "green", "blue", "one", "two", "three", "cat", "dog", "is", "not"]
ARGUMENTS = {
    "per_device_train_batch_size": 4,
    "max_steps": 4,
    "learning_rate": 1e-3,
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
    "use_cpu": True,
}


def tokenizer():
    tokenizers = pytest.importorskip("tokenizers")
    vocabulary = {word: index for index, word in enumerate(["[PAD]", "[UNK]", "[EOS]", *WORDS])}
    base = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    base.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=base, pad_token="[PAD]", unk_token="[UNK]", eos_token="[EOS]"
    )


def sentences(count=24):
    generator = torch.Generator().manual_seed(1)
    lengths = [3 + index % 3 for index in range(count)]
    picks = [torch.randint(len(WORDS), (length,), generator=generator).tolist() for length in lengths]
    return [" ".join(WORDS[index] for index in row) for row in picks]


def llama(kind="LlamaForCausalLM", **options):
    config = transformers.LlamaConfig(
        vocab_size=len(WORDS) + 3, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=64, pad_token_id=0, bos_token_id=2, eos_token_id=2,
        attention_dropout=0.1, **options,
    )  # fmt: skip
    return getattr(transformers, kind)(config)


def data_set(**columns):
    return pytest.importorskip("datasets").Dataset.from_dict(columns)


def sft(folder, **arguments):
    trl = pytest.importorskip("trl", reason="needs trl: pip install trl")
    return trl.SFTTrainer(
        llama(),
        trl.SFTConfig(str(folder), max_length=16, **{**ARGUMENTS, **arguments}),
        train_dataset=data_set(text=sentences()),
        processing_class=tokenizer(),
    )


def sft_packed(folder):
    return sft(folder, packing=True, gradient_accumulation_steps=2)


def pairs():
    texts = sentences(72)
    chosen, rejected = [[f" {text}" for text in part] for part in (texts[24:48], texts[48:])]
    return data_set(prompt=texts[:24], chosen=chosen, rejected=rejected)


def dpo(folder):
    trl = pytest.importorskip("trl", reason="needs trl: pip install trl")
    return trl.DPOTrainer(
        llama(),
        llama(),
        args=trl.DPOConfig(str(folder), max_length=24, **ARGUMENTS),
        train_dataset=pairs(),
        processing_class=tokenizer(),
    )


def dpo_lora(folder):
    trl = pytest.importorskip("trl", reason="needs trl: pip install trl")
    peft = pytest.importorskip("peft", reason="needs peft: pip install 'lrfinder[peft]'")
    return trl.DPOTrainer(
        llama(),
        args=trl.DPOConfig(str(folder), max_length=24, **ARGUMENTS),
        train_dataset=pairs(),
        processing_class=tokenizer(),
        peft_config=peft.LoraConfig(r=2, lora_dropout=0.1, target_modules=["q_proj"], task_type="CAUSAL_LM"),
    )


def reward(folder):
    trl = pytest.importorskip("trl", reason="needs trl: pip install trl")
    return trl.RewardTrainer(
        llama("LlamaForSequenceClassification", num_labels=1),
        trl.RewardConfig(str(folder), max_length=24, **ARGUMENTS),
        train_dataset=pairs(),
        processing_class=tokenizer(),
    )


def seq2seq(folder):
    config = transformers.T5Config(
        vocab_size=40, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0, pad_token_id=0
    )
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(1, 40, (24, 6), generator=generator)
    return transformers.Seq2SeqTrainer(
        transformers.T5ForConditionalGeneration(config),
        transformers.Seq2SeqTrainingArguments(str(folder), predict_with_generate=True, **ARGUMENTS),
        train_dataset=[{"input_ids": row, "labels": row.flip(0)} for row in tokens],
        data_collator=pad,
    )


def sentence_pairs(folder):
    library = pytest.importorskip("sentence_transformers", reason="needs sentence-transformers")
    from sentence_transformers import models
    from sentence_transformers.losses import MultipleNegativesRankingLoss

    words = models.WordEmbeddings(
        tokenizer=models.tokenizer.WhitespaceTokenizer(vocab=WORDS, stop_words=[]),
        embedding_weights=torch.randn(len(WORDS), 8).numpy(),
        update_embeddings=True,
    )
    model = library.SentenceTransformer(modules=[words, models.Pooling(8), models.Dense(8, 4)], device="cpu")
    texts = sentences(48)
    return library.SentenceTransformerTrainer(
        model,
        library.SentenceTransformerTrainingArguments(str(folder), **ARGUMENTS),
        train_dataset=data_set(anchor=texts[:24], positive=texts[24:]),
        loss=MultipleNegativesRankingLoss(model),
    )


TRAINERS = [sft, sft_packed, dpo, dpo_lora, reward, seq2seq, sentence_pairs]


def build(make, folder):
    transformers.utils.logging.disable_progress_bar()
    transformers.set_seed(3)
    return make(folder)


@pytest.mark.parametrize("make", TRAINERS)
def test_find_then_train_equals_train(make, tmp_path):
    expected = outcome(build(make, tmp_path))
    trainer = build(make, tmp_path)
    before, everything = process_state(), Fingerprint(**parts(trainer))

    result = find_lr(trainer, **SWEEP)

    assert len(result.lrs) == 6
    assert differences(before, process_state()) == []
    assert differences(everything.values, Fingerprint(**parts(trainer)).values) == []
    assert_same(outcome(trainer), expected)


@pytest.mark.parametrize("make", TRAINERS)
def test_losses_are_those_that_the_trainer_logs(make, tmp_path):
    """At a constant learning rate the first step of the sweep has the loss of the first step of the training."""
    trainer = build(make, tmp_path)
    result = find_lr(trainer, **SWEEP)
    _, logs = outcome(trainer)
    assert result.losses[0] == pytest.approx(logs[0]["loss"], abs=1e-4)


def test_a_fault_in_the_forward_pass_leaves_nothing_behind(tmp_path):
    expected = outcome(build(dpo, tmp_path))
    trainer = build(dpo, tmp_path)
    calls = 0

    def fail(module, arguments):
        nonlocal calls
        calls += 1
        if calls == 5:
            raise RuntimeError("in the middle")

    handle = trainer.model.register_forward_pre_hook(fail)
    everything = Fingerprint(**parts(trainer))
    with pytest.raises(RuntimeError, match="in the middle"):
        find_lr(trainer, **SWEEP)
    assert differences(everything.values, Fingerprint(**parts(trainer)).values) == []
    handle.remove()
    assert_same(outcome(trainer), expected)
