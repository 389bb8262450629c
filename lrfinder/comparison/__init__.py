"""Several finds side by side: settings compared, parameter groups swept one by one."""

from lrfinder.comparison.groups import GroupResults, find_each_group
from lrfinder.comparison.outcome import Comparison
from lrfinder.comparison.settings import compare

__all__ = ["Comparison", "GroupResults", "compare", "find_each_group"]
