"""The packed sets of tests/data, for what is built on them, and programs that are compiled in less time."""

from tests.data.conftest import few, packed_path
from tests.learning.conftest import half_optimised

__all__ = ["few", "half_optimised", "packed_path"]
