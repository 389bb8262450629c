"""pytorch-forecasting's Temporal Fusion Transformer under Lightning: find-then-train equals train."""

import warnings

import pytest
import torch

pytest.importorskip("lightning.pytorch", reason="needs lightning: pip install 'lrfinder[lightning]'")
forecasting = pytest.importorskip("pytorch_forecasting", reason="needs pytorch-forecasting")

import lightning.pytorch as pl  # noqa: E402
import pandas as pd  # noqa: E402

from lrfinder.integrations.lightning import find_lr  # noqa: E402
from tests.fingerprint import bits  # noqa: E402

pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.filterwarnings("ignore::lrfinder.LRFinderWarning")]


def build(folder):
    """Return trainer, module and loader, the same at every call."""
    pl.seed_everything(3, verbose=False)
    noise = torch.randn(2, 40).cumsum(1)
    frame = pd.DataFrame([
        {"series": str(series), "time": time, "value": float(noise[series, time]), "calendar": float(time % 7)}
        for series in range(2) for time in range(40)
    ])  # fmt: skip
    data = forecasting.TimeSeriesDataSet(
        frame, time_idx="time", target="value", group_ids=["series"], max_encoder_length=8, max_prediction_length=2,
        static_categoricals=["series"], time_varying_known_reals=["time", "calendar"],
        time_varying_unknown_reals=["value"],
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = forecasting.TemporalFusionTransformer.from_dataset(
            data, learning_rate=1e-3, hidden_size=4, attention_head_size=1, hidden_continuous_size=2, log_interval=-1
        )
        trainer = pl.Trainer(
            max_epochs=2, accelerator="cpu", gradient_clip_val=0.1, default_root_dir=folder, logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, limit_train_batches=4,
        )  # fmt: skip
    return trainer, module, data.to_dataloader(train=True, batch_size=8, num_workers=0)


def outcome(trainer, module, loader):
    trainer.fit(module, loader)
    return {name: bits(value) for name, value in module.state_dict().items()}


def test_find_then_fit_equals_fit(tmp_path):
    expected = outcome(*build(tmp_path))
    trainer, module, loader = build(tmp_path)

    result = find_lr(trainer, module, loader, apply=False, start_lr=1e-5, end_lr=1.0, num_iter=12, progress=False)

    assert len(result.lrs) > 5
    assert result.total_steps == 8
    assert outcome(trainer, module, loader) == expected


def test_its_learning_rate_is_set(tmp_path):
    trainer, module, loader = build(tmp_path)
    result = find_lr(trainer, module, loader, apply=True, num_iter=40, progress=False)
    assert module.hparams.learning_rate == result.suggestion.lr
