"""The packed sets of tests/data, for what is built on them."""

from tests.data.conftest import few, packed_path

__all__ = ["few", "packed_path"]
