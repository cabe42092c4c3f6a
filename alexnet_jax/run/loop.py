"""Training (section 5): restore, step, evaluate, report, save."""

import contextlib
import math
import time
from fractions import Fraction

import jax
from jax.sharding import Mesh

from alexnet_jax.config import Config
from alexnet_jax.data.batches import PackedSet, TrainingOrder
from alexnet_jax.errors import ConfigError, DivergedError, Interrupted
from alexnet_jax.learning.metrics import Totals, all_finite
from alexnet_jax.learning.schedule import learning_rate, make_pace
from alexnet_jax.learning.step import Batch, make_train_step, no_totals
from alexnet_jax.run.alarm import StallAlarm
from alexnet_jax.run.checkpoint import Checkpoints
from alexnet_jax.run.cluster import agreed
from alexnet_jax.run.evaluation import Evaluator
from alexnet_jax.run.feed import feed
from alexnet_jax.run.guard import Guard
from alexnet_jax.run.overview import overview
from alexnet_jax.run.report import Report, describe
from alexnet_jax.run.start import restore_or_start
from alexnet_jax.run.workdir import Workdir


def train(config: Config, workdir: Workdir, packed: PackedSet, mesh: Mesh) -> None:
    """Trains to the end, from the start or from the last checkpoint."""
    total = config.train.length(packed.images("train"))
    final = workdir.final()
    checkpoints = Checkpoints(workdir.checkpoints, config.checkpoint.keep)
    with Guard() as guard, contextlib.closing(checkpoints):
        latest = checkpoints.latest()
        if agreed(final is not None and final["step"] >= total and final["step"] == latest):
            workdir.check_figures(config)
            if final:
                print(f"already complete: step {latest}, validation {describe(final)}")
            return
        run = Run(config, workdir, packed, mesh, checkpoints)
        with contextlib.closing(run.report):
            run.report.say(overview(config, mesh, run.state.params, packed, run.first, run.total))
            run.learn(guard)
            run.finish()


class Run:
    """A run under way: its state, and what it has measured so far."""

    def __init__(
        self, config: Config, workdir: Workdir, packed: PackedSet, mesh: Mesh, checkpoints: Checkpoints
    ):
        self.config, self.workdir, self.packed, self.mesh = config, workdir, packed, mesh
        self.images = packed.images("train")
        self.total = config.train.length(self.images)
        self.checkpoints = checkpoints
        self.state, self.totals, self.errors = restore_or_start(checkpoints, config, mesh)
        self.first = int(self.state.step)
        if self.first > self.total:
            raise ConfigError(
                f"{workdir.path} is at step {self.first} already, past the {self.total} asked for"
            )
        workdir.adopt(config)
        workdir.forget_after(self.first)
        self.report = Report(workdir, self.first, self.total)
        self.alarm = StallAlarm(config, workdir.metrics())
        self.train_step = make_train_step(config, mesh)
        self.evaluator = Evaluator(config, mesh, packed)
        self.unreported: tuple[int, Totals, float] | None = None
        self.clock, self.since = math.nan, self.first  # started once the first step is compiled
        self.period = Fraction(str(config.evaluation.every_epochs)) * self.images  # pictures

    def learn(self, guard: Guard) -> None:
        """Section 5, step by step."""
        fixed = self.config.train.order == "fixed"
        order = TrainingOrder(self.config.seed, self.images, self.config.train.batch_size, fixed=fixed)
        steps = range(self.first, self.total)
        trace = self.workdir.trace if self.config.data.trace else None
        batches = feed(self.packed, "train", order, steps, self.mesh, self.config.data, trace)
        with contextlib.closing(batches):
            for done, batch in enumerate(batches, self.first + 1):
                self.advance(done, batch)
                if self.evaluation_due(done):
                    self.validate(done)
                stop = guard.asked_at(done)
                if stop or done % self.config.checkpoint.every_steps == 0:
                    self.save(done)
                if stop:
                    self.checkpoints.wait()
                    raise Interrupted(f"stopped and saved at step {done}; run the same command to go on")

    def advance(self, done: int, batch: Batch) -> None:
        """Starts a step, and reports what the one before it has found."""
        when = (self.epoch(done - 1), self.epoch(self.total), self.errors)
        pace, before = make_pace(self.config, *when), self.totals
        self.state, self.totals = self.train_step(self.state, self.totals, self.evaluator.pixels, batch, pace)
        # One step waits while another runs. With more, batches pile up on the device, and on simulated ones
        # XLA:CPU comes to a standstill at 32: the threads that launch steps wait for each other.
        jax.block_until_ready(before)
        if math.isnan(self.clock):
            self.clock = time.monotonic()
        self.flush()
        self.report.step(done)
        if done % self.config.train.log_every == 0 or done == self.total:
            rate = learning_rate(self.config.schedule, *when)
            self.unreported, self.totals = (done, self.totals, rate), no_totals(self.mesh)

    def epoch(self, step: int) -> float:
        return step * self.config.train.batch_size / self.images

    def evaluation_due(self, done: int) -> bool:
        size = self.config.train.batch_size
        return done == self.total or done * size // self.period > (done - 1) * size // self.period

    def flush(self) -> None:
        """Reports the figures of a step whose successor is already under way."""
        if self.unreported is None:
            return
        (step, totals, rate), self.unreported = self.unreported, None
        means = totals.means()
        now = time.monotonic()
        speed = (step - self.since) * self.config.train.batch_size / (now - self.clock)
        self.clock, self.since = now, step
        self.report.figures(step, "train", {**means, "learning_rate": rate, "images_per_second": speed})
        self.require(math.isfinite(means["loss"]), "training loss", step)
        if warning := self.alarm(step, means["loss"]):
            self.report.say(warning)

    def validate(self, done: int) -> dict[str, float]:
        """Validation figures, whose error the plateau rule sees."""
        self.flush()
        jax.block_until_ready(self.totals)  # the step under way is training's time
        began = time.monotonic()
        values = self.evaluator(self.state)
        self.errors.append(values["top1_error"])
        self.report.figures(done, "validation", values)
        self.clock += time.monotonic() - began
        self.require(math.isfinite(values["loss"]), "validation loss", done)
        return values

    def save(self, done: int) -> None:
        """Starts a checkpoint, once it is certain that it holds numbers."""
        self.flush()
        self.require(bool(all_finite(self.state)), "network", done)
        self.checkpoints.save(done, (self.state, self.totals), {"validation_errors": self.errors})

    def finish(self) -> None:
        """The last checkpoint and the closing figures."""
        lines = [x for x in self.workdir.metrics() if (x["split"], x["step"]) == ("validation", self.total)]
        if not agreed(bool(lines)):
            lines = [self.validate(self.total)]
        self.save(self.total)
        self.checkpoints.wait()
        for line in lines:  # none where another process has them
            figures = {name: line[name] for name in ("loss", "top1_error", "top5_error")}
            self.report.figures(self.total, "final", figures)
            self.report.say(f"done   validation {describe(figures)}")

    def require(self, finite: bool, what: str, step: int) -> None:
        """Ends a run that is beyond repair."""
        if not finite:
            saved = self.checkpoints.latest()
            raise DivergedError(
                f"the {what} is not finite any more at step {step}: lower schedule.learning_rate, or look at "
                f"the data; {'nothing was saved' if saved is None else f'step {saved} was saved before'}"
            )
