"""The part of an array that each device holds, whatever its axes.

JAX draws arrays of one or two axes; a kernel has five, a local convolution's seven. All that is said here
comes from the sharding alone: no number is touched, and arrays that are not there yet can be drawn too.
"""

import itertools
import math
from collections.abc import Iterator, Sequence

import jax
from jax import Device
from jax.sharding import NamedSharding

from alexnet_jax.errors import ConfigError

Span = tuple[int, int]  # from an index up to, but not including, another
Parts = dict[tuple[Span, ...], list[Device]]
FEW = 4  # devices that are listed one by one


def show_sharding(x: jax.Array | jax.ShapeDtypeStruct) -> str:
    """Draws which device holds which part of an array; printed, and returned."""
    drawn = "\n".join(drawing(x))
    print(drawn)
    return drawn


def parts(x: jax.Array | jax.ShapeDtypeStruct) -> Parts:
    """The devices of each part, which is a span along every axis."""
    if getattr(x, "sharding", None) is None:
        raise ConfigError(f"nothing says where an array of shape {x.shape} lies: it has no sharding")
    found: Parts = {}
    for device, index in x.sharding.devices_indices_map(x.shape).items():
        spans = (piece.indices(n)[:2] for piece, n in zip(index, x.shape, strict=True))
        found.setdefault(tuple(spans), []).append(device)
    return found


def spec_words(x: jax.Array | jax.ShapeDtypeStruct) -> str:
    """The spec of an array, as it is written in Python."""
    if not isinstance(x.sharding, NamedSharding):
        return type(x.sharding).__name__
    return f"P({', '.join(map(repr, x.sharding.spec))})"


def device_words(devices: Sequence[Device]) -> str:
    """cpu:0 2 4 6, cpu:0-7 and gpu:0 2 .. 510, each number once."""
    ids = sorted({device.id for device in devices})
    steps = {after - before for before, after in itertools.pairwise(ids)}
    words = " ".join(map(str, ids))
    if len(ids) > 2 and steps == {1}:
        words = f"{ids[0]}-{ids[-1]}"
    elif len(ids) > FEW and len(steps) == 1:
        words = f"{ids[0]} {ids[1]} .. {ids[-1]}"
    return f"{devices[0].platform}:{words}"


def device_bytes(x: jax.Array | jax.ShapeDtypeStruct) -> int:
    """The bytes of an array on each of its devices."""
    return math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize


def drawing(x: jax.Array | jax.ShapeDtypeStruct) -> Iterator[str]:
    """A line of facts, and a grid over the last two axes that are cut for every part of those before them."""
    there = parts(x)
    spans = [sorted(set(along)) for along in zip(*there, strict=True)]
    cut = [axis for axis, along in enumerate(spans) if len(along) > 1]
    whole = math.prod(x.shape) * x.dtype.itemsize
    yield f"{x.dtype} {x.shape}  {spec_words(x)}  {device_bytes(x):,} of {whole:,} bytes on each device"
    before, shown = cut[:-2], cut[-2:]
    for chosen in itertools.product(*(spans[axis] for axis in before)):
        fixed = dict(zip(before, chosen, strict=True))
        if fixed:
            yield ", ".join(f"axis {axis}: {_span_words(span)}" for axis, span in fixed.items())
        yield from _grid(there, spans, fixed, shown)


def _grid(there: Parts, spans: list[list[Span]], fixed: dict[int, Span], shown: list[int]) -> Iterator[str]:
    """The axes `shown`, the first downwards and the second across, where others are `fixed` or whole."""
    down, across = (shown[0] if shown else None), (shown[1] if len(shown) > 1 else None)

    def cell(*along: Span | None) -> str:
        chosen = fixed | dict(zip((down, across), along, strict=True))
        return device_words(there[tuple(chosen.get(axis, one[0]) for axis, one in enumerate(spans))])

    rows = spans[down] if shown else [None]
    columns = spans[across] if across is not None else [None]
    cells = [[cell(row, column) for column in columns] for row in rows]
    heads = [_span_words(column) for column in columns]
    labels = [_span_words(row) for row in rows]
    corner = f"axis {down}" if shown else ""
    left, width = (max(map(len, words)) for words in ([corner, *labels], [*heads, *itertools.chain(*cells)]))
    rule = f"  {' ' * left} +{('-' * (width + 2) + '+') * len(columns)}"
    if across is not None:
        yield f"  {' ' * left}   axis {across}"
        yield f"  {' ' * left}   {'   '.join(head.ljust(width) for head in heads)}".rstrip()
    yield f"  {corner.rjust(left)}{rule[2 + left :]}"
    for label, row in zip(labels, cells, strict=True):
        yield f"  {label.rjust(left)} | {' | '.join(words.ljust(width) for words in row)} |"
        yield rule


def _span_words(span: Span | None) -> str:
    """5, or 0-4 with the last one, or nothing."""
    if span is None:
        return ""
    first, last = span[0], span[1] - 1
    return str(first) if first == last else f"{first}-{last}"
