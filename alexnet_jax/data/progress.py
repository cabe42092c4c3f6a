"""The progress of long work: a bar on a terminal, a line every 30 seconds elsewhere."""

import sys
import time
from types import TracebackType

from tqdm import tqdm

EVERY = 30  # seconds between lines


class Progress:
    """Counts pictures, or whatever else there is much of."""

    def __init__(self, what: str, total: int, unit: str = "pictures"):
        self.what, self.total, self.unit, self.done = what, total, unit, 0
        self._bar = tqdm(
            total=total,
            desc=what,
            unit=f" {unit}",
            unit_scale=unit == "bytes",
            leave=False,
            dynamic_ncols=True,
            disable=not sys.stderr.isatty(),
        )
        self._began = self._told = time.monotonic()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def update(self, more: int) -> None:
        """Counts `more` as done."""
        self.done += more
        self._bar.update(more)
        now = time.monotonic()
        if self._bar.disable and self.done and now - self._told > EVERY:
            self._told = now
            pace = self.done / (now - self._began)
            left = tqdm.format_interval((self.total - self.done) / pace)
            print(
                f"{self.what}  {self.done} of {self.total} {self.unit}, {pace:.0f}/s, {left} left", flush=True
            )
