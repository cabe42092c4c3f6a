"""Tables, nearest names, first lines and sizes, as all commands write them."""

import difflib
from collections.abc import Container, Iterable, Sequence


def columns(rows: Sequence[Sequence[str]], right: Container[int] = ()) -> list[str]:
    """Lines of a table, whose columns `right` are numbers."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = enumerate(zip(row, widths, strict=True))
        lines.append("  ".join(x.rjust(n) if i in right else x.ljust(n) for i, (x, n) in cells).rstrip())
    return lines


def nearest(name: str, names: Iterable[str]) -> str:
    """The name that is most like another."""
    return max(names, key=lambda other: difflib.SequenceMatcher(None, name, other).ratio())


def first_line(error: Exception) -> str:
    """The first line of an error, or its type."""
    return next(filter(None, map(str.strip, str(error).splitlines())), type(error).__name__)


def size(count: float) -> str:
    """Bytes, for a person."""
    unit, worth = next((pair for pair in (("GB", 1e9), ("MB", 1e6)) if count >= pair[1]), ("kB", 1e3))
    return f"{count / worth:.{1 if unit == 'GB' else 0}f} {unit}"
