"""The README's Python runs: every block, in order, with names that a reader would have.

A block is left out only under a comment `<!-- not run: why -->`. Blocks under one heading share their names.
"""

import ast
import re
import warnings
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lrfinder

README = Path(__file__).parents[1] / "README.md"
FRAMEWORKS = {"accelerate", "ignite", "lightning", "peft", "transformers", "torchdata"}
FENCE = re.compile(r"^(?:<!-- (?P<mark>.*?) -->\n)?```python\n(?P<code>.*?)^```", re.MULTILINE | re.DOTALL)


def sections(text):
    """Return the blocks under each heading, as pairs of mark and code; a subheading comes with its heading."""
    found, heading, above = {}, "top", ""
    inside = False
    lines = []
    for line in [*text.splitlines(keepends=True), "# end\n"]:
        inside ^= line.startswith("```")
        if line.startswith("#") and not inside:
            blocks = [(match["mark"] or "", match["code"]) for match in FENCE.finditer("".join(lines))]
            if blocks:
                found[heading] = blocks
            heading, lines = line.strip("# \n"), []
            if line.startswith("###"):
                heading = f"{above}: {heading}"
            else:
                above = heading
        lines.append(line)
    return found


SECTIONS = sections(README.read_text(encoding="utf-8"))


def imported(code):
    """Return the frameworks that a block needs."""
    names = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module)
    return FRAMEWORKS & {part for name in names for part in name.split(".")}


def make_model():
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))


def prepared():
    """Return the names that the README takes for granted, on a small problem."""
    model = make_model()
    inputs = torch.randn(256, 4)
    labels = inputs[:, :3].argmax(1)
    data = TensorDataset(inputs, labels)
    loader = DataLoader(data, batch_size=16, shuffle=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    criterion = nn.CrossEntropyLoss()

    def train_step(batch):
        optimizer.zero_grad()
        loss = criterion(model(batch[0]), batch[1])
        loss.backward()
        optimizer.step()
        return loss

    dictionaries = [{"image": x, "label": y} for x, y in zip(inputs, labels, strict=True)]
    learner = SimpleNamespace(model=model, loss_func=criterion, dls=SimpleNamespace(train=loader), fit_one_cycle=fit)
    epochs = 5
    finder = lrfinder.LRFinder(model, optimizer, criterion)
    options = {"start_lr": 1e-3, "end_lr": 100.0, "total_steps": epochs * len(loader), "progress": False}
    return {
        "torch": torch, "nn": nn, "LRFinder": lrfinder.LRFinder, "model": model, "optimizer": optimizer,
        "criterion": criterion, "train_loader": loader, "val_loader": DataLoader(data, batch_size=64),
        "loader": loader, "dict_loader": DataLoader(dictionaries, batch_size=16, shuffle=True), "epochs": epochs,
        "total": epochs * len(loader), "train_step": train_step, "ema": torch.optim.swa_utils.AveragedModel(model),
        "learn": learner, "finder": finder, "result": finder.find(loader, **options),
    }  # fmt: skip


def fit(epochs, lr):
    """Stand in for the fit of a fastai learner, which is not installed for the tests."""
    assert epochs == 5
    assert 0 < lr < 100


def lightning_names():
    pl = pytest.importorskip("lightning.pytorch")

    class Module(pl.LightningModule):
        def __init__(self, lr=0.01):
            super().__init__()
            self.save_hyperparameters()
            self.lr, self.model = lr, make_model()

        def training_step(self, batch, batch_idx):
            return nn.functional.cross_entropy(self.model(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)

    return {"module": Module(), "pl": pl}


def transformers_names():
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    tokens = torch.randint(1, 40, (64, 6))
    samples = [{"input_ids": row, "labels": int(row[0] < 20)} for row in tokens]
    args = transformers.TrainingArguments(
        "out", max_steps=6, per_device_train_batch_size=8, use_cpu=True, report_to="none", disable_tqdm=True,
        save_strategy="no",
    )  # fmt: skip
    return {"model": transformers.BertForSequenceClassification(config), "args": args, "train_set": samples}


def accelerate_names():
    state = pytest.importorskip("accelerate.state")
    state.AcceleratorState._reset_state(reset_partial_state=True)
    state.GradientState._reset_state()
    return {}


PREPARED = {"lightning": lightning_names, "transformers": transformers_names, "accelerate": accelerate_names}


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("heading", SECTIONS)
def test_what_the_readme_says_runs(heading, tmp_path, monkeypatch):
    blocks = [code for mark, code in SECTIONS[heading] if not mark.startswith("not run")]
    frameworks = set().union(*map(imported, blocks))
    for framework in sorted(frameworks):
        if find_spec(framework) is None:
            pytest.skip(f"the README's section {heading!r} needs {framework}")
    monkeypatch.chdir(tmp_path)
    names = prepared()
    for framework in sorted(frameworks & set(PREPARED)):
        names |= PREPARED[framework]()
    with warnings.catch_warnings(), mpl.rc_context({"backend": "agg"}):
        warnings.simplefilter("ignore")  # tiny problems have odd curves, and frameworks much to say
        for code in blocks:
            exec(compile(code, f"README.md, {heading}", "exec"), names)
    plt.close("all")


def test_a_block_is_left_out_only_with_a_reason():
    assert SECTIONS
    marks = [mark for blocks in SECTIONS.values() for mark, _ in blocks if mark]
    assert all(re.fullmatch(r"not run: \w.*", mark) for mark in marks)


def test_how_blocks_are_found():
    text = (
        "# A\n```python\nx = 1\n# no heading\n```\n## B\ntext\n"
        "### C\n<!-- not run: theirs -->\n```python\ny\n```\n```bash\nz\n```\n"
    )
    assert sections(text) == {"A": [("", "x = 1\n# no heading\n")], "B: C": [("not run: theirs", "y\n")]}
    assert imported("import lightning.pytorch as pl\nfrom lrfinder.integrations.accelerate import x") == {
        "lightning",
        "accelerate",
    }
