"""What must hold for every optimizer."""

from tests.fingerprint import Fingerprint, bits, differences, process_state

__all__ = ["assert_restored_and_trains_as_without"]


def assert_restored_and_trains_as_without(make, before=3, *, unused_lr=False):
    """find() measures something, twice the same, changes nothing, and find-then-train equals train."""
    without = make()
    expected = without.train(before) + without.train(5)
    setup = make()
    losses = setup.train(before)
    found, process = Fingerprint(**setup.parts()), process_state()
    trained = set()
    result = setup.find(on_step=lambda *_: trained.add(bits(next(setup.model.parameters()))))
    assert differences(found.values, Fingerprint(**setup.parts()).values) == []
    assert differences(process, process_state()) == []
    assert len(trained) > 2, "the sweep did not train"
    assert any("do not depend on the learning rate" in each for each in result.warnings) == unused_lr
    assert setup.find().losses.tolist() == result.losses.tolist()
    assert losses + setup.train(5) == expected
    for mine, theirs in zip(setup.model.parameters(), without.model.parameters(), strict=True):
        assert bits(mine) == bits(theirs)
    return result
