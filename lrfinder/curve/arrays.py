"""Types of the arrays that the package works with."""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Floats"]

Floats: TypeAlias = npt.NDArray[np.float64]
