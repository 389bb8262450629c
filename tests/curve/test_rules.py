import math

import numpy as np
import pytest
from matplotlib.lines import Line2D

from lrfinder.curve.curve import Context
from lrfinder.curve.rules import RULES, RuleEntry, suggest, suggestions
from lrfinder.curve.suggestion import Suggestion
from lrfinder.errors import ArgumentError, NoSuggestionError
from lrfinder.options import FindOptions
from tests.curve.curves import healthy, measured, nearest


def test_every_rule_of_a_healthy_curve_but_refine_suggests_a_learning_rate():
    assert list(suggestions(measured(healthy()))) == [rule for rule in RULES if rule != "refine"]


@pytest.mark.parametrize("rule", sorted({*RULES} - {"refine"}))
def test_a_suggestion_names_its_rule_and_its_nearest_point(rule):
    curve = measured(healthy())
    found = suggest(rule, curve)
    assert found.rule == rule
    assert found.index == nearest(curve, found.lr)


@pytest.mark.parametrize("rule", sorted(RULES))
def test_an_entry_describes_its_rule_in_one_line(rule):
    entry = RULES[rule]
    assert entry.description
    assert "\n" not in entry.description
    assert Line2D([], [], marker=entry.marker).get_marker() == entry.marker  # Matplotlib knows it


def test_an_entry_is_all_that_a_new_rule_needs(monkeypatch):
    def function(curve, context):
        return Suggestion(lr=1e-2, rule="mine", reason="because", index=0)

    monkeypatch.setitem(RULES, "mine", RuleEntry(function=function, marker="o", description="always 1e-2"))
    assert suggest("mine", measured(healthy())).lr == 1e-2
    assert "mine" in suggestions(measured(healthy()))
    assert FindOptions(rule="mine").rule == "mine"


def test_a_reason_is_one_sentence():
    for suggestion in suggestions(measured(healthy())).values():
        assert suggestion.reason
        assert "\n" not in suggestion.reason
        assert not suggestion.reason.endswith(".")


def test_refine_needs_more_than_a_curve_and_says_what():
    with pytest.raises(NoSuggestionError, match=r"refine needs short trainings, .* Call find\(refine=True\)"):
        suggest("refine", measured(healthy()))


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule not in {"auto", "refine"}])
def test_other_finders_suggest_nothing_on_noise(rule):
    with pytest.raises(NoSuggestionError, match=rf"^{rule}: the loss did not fall clearly"):
        suggest(rule, measured(np.random.default_rng(0).normal(size=100)))


def test_other_finders_stop_where_the_loss_is_negative_and_say_so():
    with pytest.raises(NoSuggestionError, match=r"^fastai_valley: too few points .* Use rule='auto'"):
        suggest("fastai_valley", measured(healthy() - 50))


class TestFunctionAsRule:
    def test_its_learning_rate_is_the_suggestion(self):
        def half_of_the_end(curve, context):
            return curve.lrs[-1] / 2 * context.total_steps

        curve = measured(healthy(), stop_rule=False)
        found = suggest(half_of_the_end, curve, Context(total_steps=1))
        assert (found.lr, found.rule, found.index) == (0.5, "half_of_the_end", 94)
        assert isinstance(found.lr, float)
        assert found.reason == "what the function half_of_the_end returned"

    @pytest.mark.parametrize("bad", [0.0, -1e-3, math.nan, math.inf, None, "1e-3", True, [1e-3], 1j])
    def test_anything_but_a_positive_finite_number_is_an_error(self, bad):
        def broken(curve, context):
            return bad

        with pytest.raises(ArgumentError, match=r"rule=broken must return a positive finite learning rate, got"):
            suggest(broken, measured(healthy()))

    def test_its_own_errors_pass_unchanged(self):
        def nothing(curve, context):
            raise NoSuggestionError("nothing here")

        with pytest.raises(NoSuggestionError, match=r"^nothing here$"):
            suggest(nothing, measured(healthy()))

    def test_an_object_that_can_be_called_is_named_after_its_class(self):
        class Tenth:
            def __call__(self, curve, context):
                return 0.1

        assert suggest(Tenth(), measured(healthy())).rule == "Tenth"


def test_an_unknown_rule_and_too_few_points_are_named():
    curve = measured(healthy())
    with pytest.raises(ArgumentError, match=r"rule must be one of auto, .* or a function .* got rule='best'"):
        suggest("best", curve)
    with pytest.raises(NoSuggestionError, match=r"auto needs 5 points, the curve has 2. The loss became NaN"):
        suggest("auto", measured([1.0, 1.0, math.nan, 1.0, 1.0]))
