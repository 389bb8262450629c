"""The command line: what it prints where, what it writes, and its exit status."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

import lrfinder
from lrfinder import RULES, SCHEDULES, SMOOTHINGS, ArgumentError, RangeTestResult, make_scheduler
from lrfinder.cli import commands as cli
from lrfinder.cli.commands import main
from lrfinder.cli.console import their_traceback
from lrfinder.cli.entry_point import keywords
from lrfinder.curve.sweep import MODES
from lrfinder.options import FindOptions

README = Path(__file__).parents[2] / "README.md"

TRAIN = """
import argparse, os, signal, subprocess, sys, warnings
import torch
from torch import nn
from lrfinder import LRFinder

value = 3
batches = [(torch.randn(16, 4, generator=torch.Generator().manual_seed(i)),) for i in range(8)]
batches = [(x, x.sum(dim=1, keepdim=True)) for (x,) in batches]


class Model(nn.Linear):
    def forward(self, x, y=None):
        out = super().forward(x)
        return out if y is None else nn.functional.mse_loss(out, y)


def build(width=4, criterion=nn.functional.mse_loss):
    torch.manual_seed(0)
    model = Model(width, 1)
    return model, torch.optim.SGD(model.parameters(), lr=0.1), criterion, batches


def groups():
    model, _, criterion, loader = build()
    groups = [{"params": [model.weight]}, {"params": [model.bias], "lr": 0.01}]
    return model, torch.optim.SGD(groups, lr=0.1), criterion, loader


def without_criterion():
    return build(criterion=None)


def finder():
    *parts, loader = build()
    return LRFinder(*parts, accumulation_steps=2), loader


def flat():
    return build(criterion=lambda outputs, targets: 0 * outputs.sum() + 1)


def noisy():
    print("a print")
    os.write(1, b"a write\\n")
    subprocess.run(["echo", "a child"], check=True)
    return build()


def warns():
    warnings.warn("two\\nlines", UserWarning)
    return build()


def parses():
    assert argparse.ArgumentParser().parse_args() == argparse.Namespace()
    return build()


def moves():
    os.chdir("pkg")
    return build()


def raises():
    raise KeyError("theirs")


def criterion_raises():
    def criterion(outputs, targets):
        raise RuntimeError("bad loss")

    return build(criterion=criterion)


def chained():
    try:
        raises()
    except KeyError as error:
        raise RuntimeError("chained") from error


def leaves():
    sys.exit(7)


def triple():
    return build()[:3]


def swapped():
    model, optimizer, criterion, loader = build()
    return optimizer, model, criterion, loader


def nothing():
    pass


def empty():
    return *build()[:3], []


def endless():
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored in the background

    def loader():
        print("ready", file=sys.stderr, flush=True)
        while True:
            yield batches[0]

    return *build()[:3], loader()
"""

TWO = """
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
import train


def build():
    dist.init_process_group("gloo")
    model, _, criterion, loader = train.build()
    model = DistributedDataParallel(model)
    return model, train.torch.optim.SGD(model.parameters(), lr=0.1), criterion, loader
"""

SWEEP = ["--start-lr", "1e-4", "--end-lr", "10", "--num-iter", "30"]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Return a folder with a training script, the current one; what the commands import is forgotten afterwards."""
    (tmp_path / "train.py").write_text(TRAIN)
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "__init__.py").write_text("")
    (tmp_path / "pkg" / "setup.py").write_text("from train import build\n")
    (tmp_path / "pkg" / "incomplete.py").write_text("import missing_package\n")
    (tmp_path / "broken.py").write_text("def build(:\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def shell(command, folder, **options):
    """Run a shell command with this Python's programs at hand."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command], cwd=folder, env=environment, capture_output=True, text=True,
        timeout=120, check=False, **options,
    )  # fmt: skip


def test_run_prints_the_block_and_writes_the_files(project, capsys):
    assert main(["run", "train.py:build", *SWEEP, "--plot", "lr.png", "--json", "lr.json"]) == 0
    out, err = capsys.readouterr()
    saved = RangeTestResult.load("lr.json")
    assert out.splitlines()[:-1] == str(saved).splitlines()[:-1]
    assert out.startswith("LR range test: ")
    assert all(line.startswith("warning: ") for line in err.splitlines())
    assert Path("lr.png").read_bytes().startswith(b"\x89PNG")


def last_line(capsys):
    return capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize("options", [[], ["--total-steps", "50", "--schedule", "cosine"]])
def test_the_last_line_is_code_that_needs_no_result(project, capsys, options):
    main(["run", "train.py:build", *SWEEP, *options, "--json", "lr.json"])
    line = last_line(capsys)
    code = line.partition("use: scheduler = ")[2]
    suggestion = RangeTestResult.load("lr.json").suggestion.lr
    model = torch.nn.Linear(1, 1)
    names = {"optimizer": torch.optim.SGD(model.parameters(), lr=1.0), "epochs": 3, "loader": [0] * 10}
    scheduler = eval(code, {"lrfinder": lrfinder, **names})
    assert type(scheduler).__name__ == ("CosineAnnealingLR" if options else "OneCycleLR")
    peak = names["optimizer"].param_groups[0]["initial_lr" if options else "max_lr"]
    assert peak == pytest.approx(suggestion, rel=0.05)
    main(["show", "lr.json"])
    assert last_line(capsys) == line


def test_the_last_line_of_several_groups_has_an_lr_for_each(project, capsys):
    main(["run", "train.py:groups", *SWEEP])
    assert re.search(r'make_scheduler\(optimizer, "one_cycle", \[\S+, \S+\], total_steps=', last_line(capsys))


def test_the_last_line_of_an_integrations_result_loads_it_first(project, capsys):
    main(["run", "train.py:build", *SWEEP, "--json", "lr.json"])
    saved = RangeTestResult.load("lr.json")
    replace(saved, next_step="set_lr(trainer, result)").save("hf.json")
    main(["show", "hf.json"])
    assert last_line(capsys) == "use: result = lrfinder.RangeTestResult.load('hf.json'); set_lr(trainer, result)"


@pytest.mark.filterwarnings("default")
def test_a_warning_is_on_the_screen_once(project, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    main(["run", "train.py:build", "--start-lr", "1e-4", "--end-lr", "1e-3", "--num-iter", "30"])
    out, err = capsys.readouterr()
    assert (out + err).count("did not diverge") == 1


def test_show_prints_the_same_block(project, capsys):
    main(["run", "train.py:build", *SWEEP, "--json", "lr.json"])
    printed = capsys.readouterr().out
    assert main(["show", "lr.json"]) == 0
    assert capsys.readouterr() == (printed, "")


def test_show_judges_a_learning_rate(project, capsys):
    main(["run", "train.py:build", *SWEEP, "--json", "lr.json"])
    printed = capsys.readouterr().out
    assert main(["show", "lr.json", "--lr", "1e-9"]) == 0
    assert capsys.readouterr().out.removeprefix(printed).startswith("lr 1e-09 is too low. 1.0e-09 is ")
    assert main(["show", "lr.json", "--lr", "-1"]) == 2
    assert "argument --lr: must be a positive, finite number" in capsys.readouterr().err


def test_every_option_arrives(project, capsys):
    options = ["--start-lr", "0.001", "--end-lr", "0.05", "--num-iter", "12", "--mode", "linear", "--smoothing", "none"]
    options += [
        "--rule",
        "ignite",
        "--total-steps",
        "777",
        "--schedule",
        "cosine",
        "--json",
        "-",
        "--no-progress",
    ]
    assert main(["run", "train.py:build", *options]) == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["lrs"][0], data["lrs"][-1], len(data["lrs"])) == (0.001, 0.05, 12)
    assert data["lrs"][1] - data["lrs"][0] == pytest.approx((0.05 - 0.001) / 11)
    assert data["smoothed"] == pytest.approx(data["losses"])
    assert (data["rule"], data["context"]["total_steps"], data["context"]["schedule"]) == (
        "ignite",
        777,
        "cosine",
    )


def test_repeats_need_a_shuffling_loader(project, capsys):
    assert main(["run", "train.py:build", *SWEEP, "--repeats", "2"]) == 2
    assert "shuffle=True" in capsys.readouterr().err


@pytest.mark.parametrize(("words", "value"), [(["--refine"], True), (["--refine", "120"], 120), ([], None)])
def test_refine_is_a_flag_or_has_a_budget(words, value):
    args = cli._parse(["run", "train.py:build", *words])
    assert getattr(args, "refine", None) == value


def test_flags_turn_a_default_around():
    args = cli._parse(["run", "train.py:build", "--no-early-stop", "--grad-norms"])
    assert (args.early_stop, args.grad_norms) == (False, True)
    args = cli._parse(["run", "train.py:build"])
    assert not hasattr(args, "early_stop")  # what is left out is as in LRFinder.find


def test_help_needs_no_torch():
    calls = "main(['--help']); main(['plot', '--help'])"
    code = f"import sys; from lrfinder.cli import main; {calls}; print('torch' in sys.modules)"
    root = Path(lrfinder.__file__).parents[1]
    ended = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize("target", ["train.py:finder", "train.py:without_criterion", "train:build", "pkg.setup:build"])
def test_targets(project, capsys, target):
    assert main(["run", target, *SWEEP]) == 0
    assert "use: scheduler" in capsys.readouterr().out


def test_the_file_named_is_the_one_imported_also_when_its_name_is_taken(project, capsys):
    (project / "sub").mkdir()
    (project / "sub" / "json.py").write_text(TRAIN)
    assert main(["run", "sub/json.py:build", *SWEEP]) == 0
    assert sys.modules["json"] is json


def test_set_takes_literals_or_strings():
    settings = ["a=1", "b=0.5", "c=[1, 'x']", "d=None", "e=adam", "f=", "g=1=2", "h=True", "i='7'"]
    expected = {"a": 1, "b": 0.5, "c": [1, "x"], "d": None, "e": "adam", "f": "", "g": "1=2", "h": True, "i": "7"}
    assert keywords(settings) == expected


def test_set_reaches_the_function(project, capsys):
    assert main(["run", "train.py:build", "--set", "width=5", *SWEEP]) == 1
    assert "16x4 and 5x1" in capsys.readouterr().err  # torch: the batches are 4 wide


def test_json_to_stdout_is_alone_there(project, capfd):
    assert main(["run", "train.py:noisy", *SWEEP, "--json", "-", "--plot", "lr.svg"]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["schema"] == 2
    for line in ("a print", "a write", "a child", "LR range test: "):
        assert line in err


def test_names_of_files_are_those_of_the_folder_of_the_call(project, capsys):
    assert main(["run", "train.py:moves", *SWEEP, "--json", "lr.json", "--plot", "lr.png"]) == 0
    assert (project / "lr.json").exists()
    assert (project / "lr.png").exists()


@pytest.mark.filterwarnings("default")
def test_warnings_are_short_lines(project, capsys):
    assert main(["run", "train.py:warns", *SWEEP]) == 0
    assert "warning: two lines\n" in capsys.readouterr().err


def test_no_suggestion(project, capsys):
    assert main(["run", "train.py:flat", *SWEEP, "--json", "lr.json", "--plot", "lr.png"]) == 3
    out, err = capsys.readouterr()
    assert re.search("^no suggestion: .+", out, re.MULTILINE), out
    assert err.startswith("warning: ")
    assert "test_cli" not in err
    assert Path("lr.png").exists()
    assert main(["show", "lr.json"]) == 3
    assert capsys.readouterr().out == out


@pytest.mark.parametrize(
    ("target", "frames", "last"),
    [
        ("train.py:raises", ["raises"], "KeyError: 'theirs'"),
        ("train.py:criterion_raises", ["criterion"], "RuntimeError: bad loss"),
        ("train.py:chained", ["chained", "raises", "chained"], "RuntimeError: chained"),
        ("pkg.incomplete:build", ["<module>"], "ModuleNotFoundError: No module named 'missing_package'"),
        ("broken.py:build", [], "SyntaxError: "),
    ],
)
def test_their_errors_come_with_their_frames_only(project, capsys, target, frames, last):
    assert main(["run", target, *SWEEP]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert sorted(re.findall(r"in (\S+)$", err, re.MULTILINE)) == sorted(frames)
    assert str(Path(cli.__file__).parents[1]) not in err
    assert "importlib" not in err
    assert err.splitlines()[-1].startswith(last)


def test_our_frames_below_theirs_are_kept():
    with pytest.raises(ArgumentError) as caught:
        make_scheduler(None, "constant", 0.1)
    assert "in make_scheduler" in their_traceback(caught.value)


def test_sys_exit_in_their_code(project, capsys):
    assert main(["run", "train.py:leaves"]) == 1
    assert capsys.readouterr().err == "lrfinder run: your code ended Python with SystemExit(7)\n"


def test_their_argparse_sees_no_option_of_ours(project, capsys):
    before = list(sys.argv)
    assert main(["run", "train.py:parses", *SWEEP]) == 0
    assert sys.argv == before


RETURNS = r"must return \(model, optimizer, criterion, loader\), .* or \(LRFinder, loader\), got "


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train.py"], r"TARGET must be package.module:function or file.py:function, got 'train.py'"),
        (["train.py::build"], "TARGET must be package.module:function or file.py:function"),
        (["sub/train:build"], "TARGET must be package.module:function or file.py:function"),
        ([":build"], "TARGET must be package.module:function or file.py:function"),
        (["tarin.py:build"], "there is no file '.*tarin.py'"),
        (["tarin:build"], "there is no module 'tarin'"),
        (["pkg.tarin:build"], "there is no module 'pkg.tarin'"),
        (["train.build:build"], "there is no module 'train.build'"),
        (["train.py:biuld"], "train.py has no 'biuld'; did you mean 'build'?"),
        (["train.py:value"], "must name a function, got 'train.py:value', which is of type int"),
        (["train.py:triple"], RETURNS + r"\(Model, SGD, function\)"),
        (["train.py:nothing"], RETURNS + "None"),
        (["train.py:swapped"], "model=.* must be a torch.nn.Module, got SGD"),
        (["train.py:empty"], "loader"),
        (["train.py:build", "--set", "wdith=1"], "takes width, criterion: got an unexpected keyword argument 'wdith'"),
        (["train.py:build", "--set", "width"], "--set must be key=value"),
        (["train.py:build", "--num-iter", "2"], "num_iter must be at least 5"),
        (["train.py:build", "--mode", "log"], "^lrfinder run: error: --mode must be one of exponential, linear, got"),
        (["train.py:build", "--rule", "best"], "--rule must be one of .*auto"),
        (["train.py:build", "--total-steps", "0"], "--total-steps must be an integer of at least 1"),
        (["train.py:build", "--start-lr", "1", "--end-lr", "0.1"], "end_lr must exceed start_lr=1.0"),
        (["train.py:build", "--start-lr", "nan"], "--start-lr must be a positive, finite number"),
        (["train.py:build", "--refine"], "--refine needs total_steps"),
        (["train.py:build", "--plot", "lr.pgn"], "--plot must name a plot such as lr.png.*, got 'lr.pgn'"),
        (["train.py:build", "--plot", "no/lr.png"], "--plot must name a file in a folder that exists"),
        (["train.py:build", "--json", "pkg"], "--json must name a file in a folder that exists, got 'pkg'"),
    ],
)
def test_bad_usage_is_one_line(project, capsys, arguments, message):
    assert main(["run", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1, err
    assert err.startswith("lrfinder run: error: ")
    assert re.search(message, err), err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: COMMAND"),
        (["rum"], "invalid choice: 'rum'"),
        (["run"], "required: TARGET"),
        (["run", "a:b", "--num-iters", "5"], "unknown argument '--num-iters'; did you mean --num-iter?"),
        (["run", "a:b", "--num-iter", "many"], "argument --num-iter: invalid int value: 'many'"),
        (["plot", "a.json"], "required: -o/--output"),
        (["demo", "--epochs", "0"], "argument --epochs: must be a whole number of at least 1, got '0'"),
    ],
)
def test_usage_errors(capsys, arguments, message):
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("usage: lrfinder")
    assert message in err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot read 'lr.json': No such file"),
        ("no json", "must name a JSON file"),
        ("[]", "reads the schemas 1 and 2, got schema=None"),
        ('{"schema": 2}', "got one that lacks something"),
        ("\udcff", "must name a JSON file"),
    ],
)
def test_show_refuses_other_files(project, capsys, text, message):
    if text is not None:
        Path("lr.json").write_text(text, errors="surrogateescape")
    assert main(["show", "lr.json"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert message in err


def test_a_folder_that_cannot_be_written(project, capsys, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    assert main(["run", "train.py:build", *SWEEP, "--json", "lr.json"]) == 2
    out, err = capsys.readouterr()
    assert out.startswith("LR range test")  # what was measured is not lost
    assert "--json cannot write '" in err
    assert "lr.json': No space left on device." in err


@pytest.mark.parametrize("second", ["b.json", "pkg/a.json"])
def test_plot_overlays_results_named_after_their_files(project, capsys, second):
    main(["run", "train.py:build", *SWEEP, "--json", "a.json"])
    main(["run", "train.py:finder", *SWEEP, "--json", second])
    capsys.readouterr()
    assert main(["plot", "a.json", second, "-o", "both.svg"]) == 0
    assert capsys.readouterr() == ("", "")
    picture = Path("both.svg").read_text()
    assert "<!-- a.json: " in picture
    assert f"<!-- {second}: " in picture


def test_help_names_every_option_and_choice(capsys):
    assert main(["run", "--help"]) == 0
    text = capsys.readouterr().out
    options = [field.name.replace("_", "-") for field in fields(FindOptions) if field.metadata["help"] is not None]
    assert [name for name in options if f"--{name}" not in text and f"--no-{name}" not in text] == []
    assert len(options) >= 12
    listed = re.findall(r"\w+", text)
    assert {*MODES, *SMOOTHINGS, *RULES, *SCHEDULES} <= {*listed}


def test_help_and_version(capsys):
    assert main(["--help"]) == 0
    assert "lrfinder run train.py:build" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"lrfinder {lrfinder.__version__}\n"
    assert re.fullmatch(r"\d+\.\d+\S*", lrfinder.__version__)


def test_a_checkout_that_is_not_installed_runs_and_knows_its_version():
    not_installed = """
import importlib.metadata, runpy, sys
def version(name):
    raise importlib.metadata.PackageNotFoundError(name)
importlib.metadata.version = importlib.metadata.distribution = version
sys.argv = ["lrfinder", "--version"]
runpy.run_module("lrfinder", run_name="__main__")
"""
    root = Path(lrfinder.__file__).parents[1]
    ended = subprocess.run([sys.executable, "-c", not_installed], cwd=root, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, f"lrfinder {lrfinder.__version__}\n"), ended.stderr


def test_the_version_of_the_distribution_is_read_from_the_package():
    root = Path(lrfinder.__file__).parents[1]
    project = (root / "pyproject.toml").read_text(encoding="utf-8")
    assert 'dynamic = ["version"]' in project
    assert 'version = { attr = "lrfinder.version.__version__" }' in project


def test_ctrl_c(project):
    command = [sys.executable, "-m", "lrfinder", "run", "train.py:endless", "--num-iter", "1000000"]
    command += ["--json", "lr.json", "--start-lr", "1e-8", "--end-lr", "1e-7"]
    with subprocess.Popen(command, cwd=project, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err == "lrfinder run: interrupted\n"
    assert not Path("lr.json").exists()


def test_no_error_if_the_reader_of_the_output_has_gone(project):
    main(["run", "train.py:build", *SWEEP, "--json", "lr.json"])
    read, write = os.pipe()
    os.close(read)
    try:
        command = [sys.executable, "-m", "lrfinder", "show", "lr.json"]
        ended = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
    finally:
        os.close(write)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_in_two_processes_one_speaks(project):
    (project / "two.py").write_text(TWO)
    sweep = " ".join(SWEEP)
    command = f"torchrun --nproc-per-node 2 -m lrfinder run two.py:build {sweep} --json lr.json --plot lr.png"
    ended = shell(command, project)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[:-1] == str(RangeTestResult.load("lr.json")).splitlines()[:-1]
    assert "process group" not in ended.stderr  # it has been left
    assert Path("lr.png").exists()


def _section(text, title):
    found = re.search(rf"^## {title}$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"README.md has no section {title!r}"
    return re.findall(r"^```(\w+)\n(.*?)^```", found[1], re.MULTILINE | re.DOTALL)


def test_the_readmes_commands_work_as_written(project, capsys):
    blocks = _section(README.read_text(encoding="utf-8"), "Command line")
    commands = [line for language, block in blocks if language == "bash" for line in block.splitlines()]
    assert commands
    for command in commands:
        assert command.startswith("lrfinder ")
        assert main(shlex.split(command)[1:]) == 0, command
    written = {name for command in commands for name in re.findall(r"\S+\.(?:png|json)", command)}
    assert written
    assert [name for name in written if not Path(name).exists()] == []
