import gc
import threading

import pytest
import torch
from torch import nn

from lrfinder import LRFinder
from lrfinder.display.progress import Progress
from tests.notes import Notes


class Clock:
    """A clock that the test moves, in place of those that are read."""

    def __init__(self, monkeypatch):
        import tqdm.std

        self._seconds = Notes(100.0)  # which no snapshot puts back
        monkeypatch.setattr(tqdm.std, "time", lambda: self.now)
        monkeypatch.setattr("lrfinder.display.progress.monotonic", lambda: self.now)

    @property
    def now(self):
        return sum(self._seconds)

    @now.setter
    def now(self, value):
        self._seconds.append(value - self.now)


def frames(text):
    return [frame for frame in text.split("\r") if frame.strip()]


def test_it_shows_the_phase_and_the_count_on_stderr(monkeypatch, capsys):
    clock = Clock(monkeypatch)
    with Progress(enabled=True, total=4) as progress:
        progress.phase("scout")
        clock.now += 1
        progress.advance()
        progress.expect(8)
        clock.now += 1
        progress.phase("refine 2/5")
        clock.now += 1
        progress.advance()
    out, err = capsys.readouterr()
    shown = frames(err)
    assert any("LR range test: scout" in frame and "1/4" in frame for frame in shown)
    assert any("LR range test: refine 2/5" in frame and "1/8" in frame for frame in shown)
    assert any("LR range test: refine 2/5" in frame and "2/8" in frame for frame in shown)
    assert out == ""


def test_at_most_ten_redraws_a_second(capsys, monkeypatch):
    clock = Clock(monkeypatch)
    with Progress(enabled=True, total=1000) as progress:
        for step in range(1000):  # one second
            clock.now += 0.001
            if step % 5 == 0:
                progress.phase(f"sweep {step}/200")
            progress.advance()
        redraws = len(frames(capsys.readouterr().err))
    assert 5 <= redraws <= 11  # the first frame, then ten


def test_without_a_bar_nothing_is_shown_and_tqdm_is_not_asked(capsys):
    with Progress(enabled=False, total=4) as progress:
        progress.phase("scout")
        progress.advance()
        progress.expect(8)
    assert capsys.readouterr() == ("", "")


def test_it_is_closed_on_every_way_out_and_leaves_no_thread(capsys):
    from tqdm import tqdm

    before = threading.active_count()
    progress = Progress(enabled=True, total=4)
    progress.advance()
    with pytest.raises(KeyboardInterrupt), progress:
        raise KeyboardInterrupt
    assert frames(capsys.readouterr().err)
    assert progress._bar.disable  # what close() sets
    assert progress._bar not in tqdm._instances
    assert threading.active_count() == before


@pytest.mark.parametrize("fault", [None, RuntimeError, KeyboardInterrupt])
@pytest.mark.filterwarnings("ignore::lrfinder.LRFinderWarning")
def test_a_find_names_its_phases_and_closes_the_bar(capsys, monkeypatch, fault):
    import tqdm.std

    gc.collect()  # or bars of earlier tests are closed in between
    closed = []
    close = tqdm.std.tqdm.close
    monkeypatch.setattr(tqdm.std.tqdm, "close", lambda bar: (closed.append((bar.n, bar.total)), close(bar))[1])
    clock = Clock(monkeypatch)
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    steps = Notes()

    def loss_fn(model, batch):
        clock.now += 1
        steps.append(1)
        if fault is not None and len(steps) == 40:
            raise fault
        return (model(batch) - batch).pow(2).mean()

    def find():
        dataset = torch.randn(32, 1)
        loader = torch.utils.data.DataLoader(dataset, 8, shuffle=True)
        return LRFinder(model, optimizer, loss_fn=loss_fn).find(loader, num_iter=20, repeats=2)

    if fault is None:
        assert find().steps == closed[0][0]
    else:
        with pytest.raises(fault):
            find()
        assert closed[0][0] == 39
    err = capsys.readouterr().err
    assert "LR range test: scout" in err
    assert "LR range test: sweep 1/2" in err
    assert ("LR range test: sweep 2/2" in err) == (fault is None)
    assert frames(err)  # and the last thing drawn clears the line
    assert err.endswith("\r")
