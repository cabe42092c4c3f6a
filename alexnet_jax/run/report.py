"""What a run says: a bar or plain lines on the terminal, metrics.jsonl, TensorBoard."""

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Any

import tensorflow as tf
from clu import metric_writers
from tqdm import tqdm

from alexnet_jax.run.workdir import Workdir


class Report:
    """Tells a terminal, a file and TensorBoard how a run is doing; silent where another process writes it."""

    def __init__(self, workdir: Workdir, first: int, total: int):
        self.workdir, self.total = workdir, total
        self._writer = metric_writers.SummaryWriter(str(workdir.path)) if workdir.writes else None
        self._bar = tqdm(
            total=total,
            initial=first,
            unit=" steps",
            leave=False,
            dynamic_ncols=True,
            disable=not (workdir.writes and sys.stderr.isatty()),
        )
        self._started, self._first, self._lost = None, first, False

    def step(self, step: int) -> None:
        """Moves the bar; pace and time left are reckoned from the first step, which is compiled."""
        if self._started is None:
            self._started, self._first = time.monotonic(), step
            self._bar.initial = self._bar.n = step
            self._bar.unpause()
        self._bar.update(step - self._bar.n)

    def figures(self, step: int, split: str, values: dict[str, float]) -> None:
        """Writes one line of figures everywhere."""
        if self._writer is None:
            return
        self.workdir.append({"step": step, "split": split, **values})
        with self._tolerated():
            self._writer.write_scalars(step, {f"{split}/{name}": value for name, value in values.items()})
        text = f"{step:>7}/{self.total}  {split:<10}  {describe(values)}"
        if split == "train" and not self._bar.disable:
            self._bar.set_postfix_str(f"loss {values['loss']:.3f}, top-1 {100 * values['top1_error']:.1f} %")
        else:
            left = "" if split != "train" else f"  {self._time_left(step)} left"
            self.say(text + left)

    def say(self, text: str) -> None:
        """Prints a line, above the bar where there is one."""
        if self._writer is None:
            return
        tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()

    def close(self) -> None:
        self._bar.close()
        if self._writer is not None:
            with self._tolerated():
                self._writer.flush()
            with self._tolerated():
                self._writer.close()

    @contextlib.contextmanager
    def _tolerated(self) -> Iterator[None]:
        """TensorBoard's events are lost where the disk is full: `metrics.jsonl` is what counts."""
        try:
            yield
        except tf.errors.OpError as error:
            if not self._lost:
                self.say(f"not written for TensorBoard: {error.message}")
            self._lost = True

    def _time_left(self, step: int) -> str:
        if step <= self._first:
            return "?"
        pace = (time.monotonic() - self._started) / (step - self._first)
        return tqdm.format_interval(pace * (self.total - step))


def describe(values: dict[str, Any]) -> str:
    """Figures for a person."""
    words = [f"loss {values['loss']:.4f}"]
    words += [f"top-{k} error {100 * values[f'top{k}_error']:.1f} %" for k in (1, 5)]
    if "learning_rate" in values:
        words.append(f"rate {values['learning_rate']:g}")
    if "images_per_second" in values:
        words.append(f"{values['images_per_second']:.0f} images/s")
    return "  ".join(words)
