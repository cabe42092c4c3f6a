"""Programs that are compiled in less time."""

from tests.learning.conftest import half_optimised

__all__ = ["half_optimised"]
