"""The Python of the READMEs runs: every block, in order, with the names that a reader would have.

A block is skipped only under a comment `<!-- not run: why -->`. Blocks under one heading share their names.
"""

import ast
import json
import re
import warnings
from importlib.util import find_spec
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lrfinder

ROOT = Path(__file__).parents[1]
DOCUMENTS = ("README.md", ".github/PYPI.md", "lrfinder/integrations/README.md")
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


SECTIONS = {
    (document, heading): blocks
    for document in DOCUMENTS
    for heading, blocks in sections((ROOT / document).read_text(encoding="utf-8")).items()
}


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
    """Return the names that the blocks do not define, on a small problem."""
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

    epochs = 5
    finder = lrfinder.LRFinder(model, optimizer, criterion)
    options = {"start_lr": 1e-3, "end_lr": 100.0, "total_steps": epochs * len(loader), "progress": False}
    return {
        "torch": torch, "nn": nn, "LRFinder": lrfinder.LRFinder, "model": model, "optimizer": optimizer,
        "criterion": criterion, "train_loader": loader, "val_loader": DataLoader(data, batch_size=64),
        "loader": loader, "epochs": epochs, "total": epochs * len(loader), "train_step": train_step,
        "update": lambda engine, batch: train_step(batch), "engine": None,
        "losses": [2.0 / step for step in range(1, 100)], "lrs": [0.1] * 99,
        "ema": torch.optim.swa_utils.AveragedModel(model), "finder": finder, "result": finder.find(loader, **options),
    }  # fmt: skip


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

    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    return {"module": Module(), "pl": pl, "trainer": pl.Trainer(max_epochs=2, accelerator="cpu", **quiet)}


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
    model = transformers.BertForSequenceClassification(config)
    trainer = transformers.Trainer(model, args, train_dataset=samples)
    return {"model": model, "args": args, "train_set": samples, "trainer": trainer}


def accelerate_names(*, own_accelerator):
    accelerate = pytest.importorskip("accelerate")
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    accelerate.state.GradientState._reset_state()
    if own_accelerator:  # there is one for the life of a process
        return {}
    accelerator = accelerate.Accelerator(cpu=True)
    names = prepared()
    prepare = accelerator.prepare(names["model"], names["optimizer"], names["loader"])
    return {"accelerator": accelerator} | dict(zip(("model", "optimizer", "loader"), prepare, strict=True))


def framework_names(framework, blocks):
    if framework == "accelerate":
        return accelerate_names(own_accelerator=any("Accelerator(" in code for code in blocks))
    return {"lightning": lightning_names, "transformers": transformers_names}.get(framework, dict)()


def run_blocks(document, heading):
    """Return the blocks of a section that are run, and the frameworks that they need."""
    blocks = [code for mark, code in SECTIONS[document, heading] if not mark.startswith("not run")]
    return blocks, set().union(*map(imported, blocks))


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("document", "heading"),
    [pytest.param(*key, marks=[pytest.mark.frameworks] * bool(run_blocks(*key)[1])) for key in SECTIONS],
)
def test_every_block_runs(document, heading, tmp_path, monkeypatch):
    blocks, frameworks = run_blocks(document, heading)
    for framework in sorted(frameworks):
        if find_spec(framework) is None:
            pytest.skip(f"{heading!r} of {document} needs {framework}")
    monkeypatch.chdir(tmp_path)
    names = prepared()
    for framework in sorted(frameworks):
        names |= framework_names(framework, blocks)
    with warnings.catch_warnings(), mpl.rc_context({"backend": "agg"}):
        warnings.simplefilter("ignore")  # tiny problems have odd curves, and frameworks much to say
        for code in blocks:
            exec(compile(code, f"{document}, {heading}", "exec"), names)
    plt.close("all")


def test_a_block_is_skipped_only_with_a_reason():
    assert SECTIONS
    marks = [mark for blocks in SECTIONS.values() for mark, _ in blocks if mark]
    assert all(re.fullmatch(r"not run: \w.*", mark) for mark in marks)


def pages():
    return [*ROOT.glob("*.md"), *ROOT.glob("lrfinder/**/*.md"), *ROOT.glob("tests/**/*.md")]


def anchor(heading):
    """Return the anchor that a forge gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"https?://", target):
            continue
        path, _, fragment = target.partition("#")
        linked = page.parent / path if path else page
        assert linked.exists(), target
        if fragment:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            assert fragment in map(anchor, headings), target


def example(page):
    """Return the first Python block of a page, and the output that follows it."""
    return re.search(r"```python\n(.*?)```\n\n```\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL).groups()


def test_the_page_for_an_index_needs_no_other_file():
    text = (ROOT / ".github/PYPI.md").read_text(encoding="utf-8")
    assert [target for target in re.findall(r"\]\((.*?)\)", text) if not target.startswith("https://")] == []
    assert example(ROOT / ".github/PYPI.md") == example(ROOT / "README.md")


def test_the_printed_block_is_that_of_the_quickstart():
    """Up to the seconds that it took."""
    notebook = json.loads((ROOT / "notebooks" / "quickstart.ipynb").read_text(encoding="utf-8"))
    printed = ["".join(each.get("text", ())) for cell in notebook["cells"] for each in cell.get("outputs", ())]
    blocks = [re.sub(r"[\d.]+ s\n", "0 s\n", text) for text in [*printed, example(ROOT / "README.md")[1]]]
    assert blocks[-1] in blocks[:-1]


def test_headings_and_blocks_are_found():
    text = (
        "# A\n```python\nx = 1\n# no heading\n```\n## B\ntext\n"
        "### C\n<!-- not run: theirs -->\n```python\ny\n```\n```bash\nz\n```\n"
    )
    assert sections(text) == {"A": [("", "x = 1\n# no heading\n")], "B: C": [("not run: theirs", "y\n")]}
    assert imported("import lightning.pytorch as pl\nfrom lrfinder.integrations.accelerate import x") == {
        "lightning",
        "accelerate",
    }
