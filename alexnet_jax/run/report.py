"""What a run says while it learns: a bar or plain lines on the terminal, metrics.jsonl, TensorBoard."""

import sys
import time
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from alexnet_jax.config import Config
from alexnet_jax.run.events import Events
from alexnet_jax.run.workdir import Workdir

BAR = "{n_fmt}/{total_fmt} |{bar}| {remaining} left  {desc}"


@dataclass(frozen=True)
class Beside:
    """What is told of training besides its figures, and depends on the clock and the machine."""

    epoch: float
    waiting: float  # the share of time that the devices waited for pictures
    memory: int  # bytes


class Report:
    """Tells a terminal, a file and TensorBoard how a run is doing; silent where another process writes it."""

    def __init__(self, config: Config, workdir: Workdir, first: int, total: int, *, quiet: bool = False):
        self.workdir, self.total, self.quiet = workdir, total, quiet
        self._bar = tqdm(
            total=total,
            initial=first,
            bar_format=BAR,
            leave=False,
            dynamic_ncols=True,
            disable=quiet or not (workdir.writes and sys.stderr.isatty()),
        )
        self._started, self._first = None, first
        self.events = Events(workdir, config, self.warn)

    def step(self, step: int) -> None:
        """Moves the bar; pace and time left are reckoned from the first step, which is compiled."""
        if self._started is None:
            self._started, self._first = time.monotonic(), step
            self._bar.initial = self._bar.n = step
            self._bar.unpause()
        self._bar.update(step - self._bar.n)

    def figures(self, step: int, split: str, values: dict[str, float], beside: Beside | None = None) -> None:
        """Writes one line of figures everywhere; the log has nothing of what is beside them."""
        self.workdir.append({"step": step, "split": split, **values})
        more = {} if beside is None else vars(beside)
        self.events.scalars(step, {f"{split}/{name}": value for name, value in (values | more).items()})
        if beside is not None and not self._bar.disable:
            self._bar.set_description_str(_short(values, beside))
            return
        text = f"{step:>7}/{self.total}  {split:<10}  {describe(values)}"
        if beside is not None:
            text += f"  {_machine(beside)}  {self._time_left(step)} left"
        self.say(text)

    def say(self, text: str) -> None:
        """Prints how a run goes, if anybody wants to know."""
        if not self.quiet:
            self.warn(text)

    def warn(self, text: str) -> None:
        """Prints what must not be missed, above the bar where there is one."""
        if self.workdir.writes:
            tqdm.write(text, file=sys.stdout)
            sys.stdout.flush()

    def close(self) -> None:
        self._bar.close()
        self.events.close()

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


def _machine(beside: Beside) -> str:
    """How far it is, and how the machine bears it."""
    waiting, memory = 100 * beside.waiting, beside.memory / 1e9
    return f"epoch {beside.epoch:.2f}  waiting {waiting:.0f} %  memory {memory:.2f} GB"


def _short(values: dict[str, float], beside: Beside) -> str:
    """The same, for a bar: what counts most comes first, as the end is cut off where a line is too short."""
    errors = "/".join(f"{100 * values[f'top{k}_error']:.1f}" for k in (1, 5))
    return (
        f"epoch {beside.epoch:.1f}  loss {values['loss']:.3f}  errors {errors} %  "
        f"rate {values['learning_rate']:g}  {values['images_per_second']:.0f} images/s  "
        f"waiting {100 * beside.waiting:.0f} %  {beside.memory / 1e9:.1f} GB"
    )
