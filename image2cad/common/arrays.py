"""The word for an array of numbers in annotations; shapes are in the docstrings."""

from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]
