"""Reports a run while it learns: a bar or plain lines on the terminal, metrics.jsonl, TensorBoard."""

import sys
import time
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from alexnet_jax.config.fields import Config
from alexnet_jax.reporting.events import Events
from alexnet_jax.storage.workdir import Workdir

BAR = "{n_fmt}/{total_fmt} |{bar}| {remaining} left  {desc}"


@dataclass(frozen=True)
class HostStatus:
    """The state of training on this machine; it is shown, but is no part of `metrics.jsonl`."""

    epoch: float
    waiting: float  # the share of time that the devices waited for pictures
    memory: int  # bytes


class Report:
    """Reports to a terminal, a file and TensorBoard; silent in processes that do not write the run."""

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

    def metrics(
        self, step: int, split: str, values: dict[str, float], host: HostStatus | None = None
    ) -> None:
        """Writes a line of metrics everywhere; `metrics.jsonl` has nothing of the host."""
        self.workdir.append({"step": step, "split": split, **values})
        more = {} if host is None else vars(host)
        self.events.scalars(step, {f"{split}/{name}": value for name, value in (values | more).items()})
        if host is not None and not self._bar.disable:
            self._bar.set_description_str(_short(values, host))
            return
        text = f"{step:>7}/{self.total}  {split:<10}  {metrics_words(values)}"
        if host is not None:
            text += f"  {_describe_host(host)}  {self._time_left(step)} left"
        self.say(text)

    def say(self, text: str) -> None:
        """Prints the course of a run, unless it is quiet."""
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


def metrics_words(values: dict[str, Any]) -> str:
    """Metrics for a person."""
    words = [f"loss {values['loss']:.4f}"]
    words += [f"top-{k} error {100 * values[f'top{k}_error']:.1f} %" for k in (1, 5)]
    if "learning_rate" in values:
        words.append(f"rate {values['learning_rate']:g}")
    if "images_per_second" in values:
        words.append(f"{values['images_per_second']:.0f} images/s")
    return "  ".join(words)


def _describe_host(host: HostStatus) -> str:
    """The epoch, and the load of the machine."""
    waiting, memory = 100 * host.waiting, host.memory / 1e9
    return f"epoch {host.epoch:.2f}  waiting {waiting:.0f} %  memory {memory:.2f} GB"


def _short(values: dict[str, float], host: HostStatus) -> str:
    """Metrics for a bar: the most important first, as the end is cut off where a line is too short."""
    errors = "/".join(f"{100 * values[f'top{k}_error']:.1f}" for k in (1, 5))
    return (
        f"epoch {host.epoch:.1f}  loss {values['loss']:.3f}  errors {errors} %  "
        f"rate {values['learning_rate']:g}  {values['images_per_second']:.0f} images/s  "
        f"waiting {100 * host.waiting:.0f} %  {host.memory / 1e9:.1f} GB"
    )
