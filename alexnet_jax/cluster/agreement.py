"""Values that all processes of a run share once they have joined."""

import numpy as np
from jax.experimental import multihost_utils

MOST = 200  # bytes of words


def from_first(value: int) -> int:
    """Process 0's value, in all of them: what each decides from its clock or its disk could differ."""
    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))


def gather_words(words: str) -> list[str]:
    """The words of each process, in all of them; cut off where they are long."""
    text = np.frombuffer(words.encode()[:MOST].ljust(MOST, b"\0"), np.uint8)
    heard = multihost_utils.process_allgather(text, tiled=False).reshape(-1, MOST)
    return [line.tobytes().rstrip(b"\0").decode(errors="ignore") for line in heard]
