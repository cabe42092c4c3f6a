"""The packed sets of tests/data, for what is built on them, and programs that are compiled in less time."""

from collections.abc import Iterator

import pytest

from tests.data.conftest import few, packed_path
from tests.learning.conftest import half_optimised
from tests.run.commands import STARTED, end

__all__ = ["few", "half_optimised", "packed_path"]


@pytest.fixture(autouse=True)
def _commands_end() -> Iterator[None]:
    """What a test that fails has started is killed, and does not fail the next one too."""
    yield
    while STARTED:
        with STARTED.pop() as process:
            end(process)
