"""Training (section 5): restore, step, evaluate, report, save."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator
from fractions import Fraction
from typing import NoReturn

import jax
from jax.sharding import Mesh

from alexnet_jax.config import Config
from alexnet_jax.data.batches import PackedSet, TrainingOrder
from alexnet_jax.errors import ConfigError, DivergedError, Interrupted, RefusedError
from alexnet_jax.learning.metrics import Totals, all_finite
from alexnet_jax.learning.schedule import learning_rate, make_pace
from alexnet_jax.learning.state import Batch
from alexnet_jax.learning.step import Health, make_train_step, no_totals
from alexnet_jax.run.alarm import StallAlarm
from alexnet_jax.run.checkpoint import Checkpoints, Kept
from alexnet_jax.run.closing import closing
from alexnet_jax.run.cluster import agreed, told_by_all
from alexnet_jax.run.dataset import DatasetFacts, keep_facts
from alexnet_jax.run.evaluation import Evaluator
from alexnet_jax.run.feed import feed
from alexnet_jax.run.guard import Guard
from alexnet_jax.run.overview import overview
from alexnet_jax.run.profile import Profile
from alexnet_jax.run.report import Beside, Report, describe
from alexnet_jax.run.start import check_fits, restore_or_start
from alexnet_jax.run.stopwatch import Stopwatch, memory_used
from alexnet_jax.run.watchdog import Watchdog
from alexnet_jax.run.workdir import Workdir


def train(
    config: Config, workdir: Workdir, packed: PackedSet, mesh: Mesh, *, quiet: bool = False, recipe: str = ""
) -> None:
    """Trains to the end, from the start or from the last checkpoint.

    `recipe` is what --config was given, for the commands that are named at the end.
    """
    total = config.train.length(packed.images("train"))
    final = workdir.final()
    epoch, epochs = config.train.epoch_steps(packed.images("train")), config.checkpoint.keep_epochs
    kept = Kept(config.checkpoint.keep, lambda step: int(step / epoch // epochs) if epochs else 0)
    checkpoints = Checkpoints(workdir.checkpoints, kept)
    watchdog = Watchdog(config.limits.stuck)
    with Guard() as guard, watchdog, contextlib.closing(checkpoints):
        latest = checkpoints.latest()
        if agreed(final is not None and final["step"] >= total and final["step"] == latest):
            workdir.check_figures(config)
            if final:
                print(f"already complete: step {latest}, validation {describe(final)}")
            return
        run = Run(config, workdir, packed, mesh, checkpoints, guard, watchdog, quiet=quiet)
        with contextlib.closing(run.report), contextlib.closing(run.profile):
            run.open()
            run.learn()
            run.finish(recipe)


class Run:
    """A run under way: its state, and what it has measured so far."""

    def __init__(
        self,
        config: Config,
        workdir: Workdir,
        packed: PackedSet,
        mesh: Mesh,
        checkpoints: Checkpoints,
        guard: Guard,
        watchdog: Watchdog,
        *,
        quiet: bool,
    ):
        self.config, self.workdir, self.packed, self.mesh = config, workdir, packed, mesh
        self.guard, self.watchdog, self.began = guard, watchdog, time.monotonic()
        self.images = packed.images("train")
        self.total = config.train.length(self.images)
        self.checkpoints = checkpoints
        if workdir.begun:
            check_fits(workdir.read_config(), config)
        self.state, self.totals, self.progress = restore_or_start(checkpoints, config, mesh)
        self.first = int(self.state.step)
        if self.first > self.total:
            raise ConfigError(
                f"{workdir.path} is at step {self.first} already, past the {self.total} asked for"
            )
        self.changes = workdir.changes(config)
        workdir.adopt(config)
        keep_facts(workdir, DatasetFacts(packed.statistics, tuple(packed.class_names)))
        workdir.forget_after(self.first, self.validated)
        self.report = Report(config, workdir, self.first, self.total, quiet=quiet)
        self.profile = Profile(workdir, self.first, config.profile_steps, self.report.say)
        self.alarm = StallAlarm(config, workdir.metrics())
        self.train_step = make_train_step(config, mesh)
        self.evaluator = Evaluator(config, mesh, packed)
        self.health: Health | None = None  # of the step under way
        self.unreported: tuple[int, Totals, float] | None = None
        self.stopwatch = Stopwatch(self.first)
        size, fixed = config.train.batch_size, config.train.order == "fixed"
        parts = config.train.parts_of(self.images)
        self.order = TrainingOrder(config.seed, self.images, size, fixed=fixed, parts=parts)
        self.epoch_steps = config.train.epoch_steps(self.images)
        self.period = Fraction(str(config.evaluation.every_epochs)) * self.epoch_steps

    def open(self) -> None:
        """Says what is about to be done."""
        whole = (self.config, self.mesh, self.state.params, self.packed)
        self.report.say(overview(*whole, self.first, self.total, self.workdir.path))
        for name, before, now in self.changes:
            self.report.warn(f"config {name}={now}, until now {before}")
        if not self.first:
            self.report.events.config(self.config)
        self.report.events.kernels(self.first, self.state.params)

    def learn(self) -> None:
        """Section 5, step by step."""
        if self.first and self.evaluation_due(self.first) and self.validated < self.first:
            self.validate(self.first)  # it was cut short
        steps, saving = range(self.first, self.total), self.config.checkpoint
        trace = self.workdir.trace if self.config.data.trace else None
        batches = feed(self.packed, "train", self.order, steps, self.mesh, self.config.data, trace)
        with contextlib.closing(batches):
            for done, batch in enumerate(self.stopwatch.waiting(batches, self.idle), self.first + 1):
                self.advance(done, batch)
                if self.evaluation_due(done):
                    self.validate(done)
                if self.guard.asked():
                    self.stop(done)
                if done % saving.period == 0 or done == self.best:
                    self.try_to_save(done)
                if done % saving.period == saving.ahead:
                    self.finish_saving()

    def idle(self) -> bool:
        """Whether the devices have nothing to do."""
        return self.health is None or self.health.loss.is_ready()

    def try_to_save(self, done: int) -> None:
        """A run whose disk is full may go on: there may be room for the next checkpoint."""
        self.finish_saving()
        with self.tolerated():
            self.save(done)

    def save_now(self, done: int) -> None:
        """Returns when everything is on disk."""
        self.finish_saving()
        self.save(done)
        self.checkpoints.wait()
        self.watchdog.alive()

    def finish_saving(self) -> None:
        """Of a checkpoint under way; one that fails does not keep the next from being tried."""
        with self.tolerated():
            self.checkpoints.wait()
        self.watchdog.alive()

    @contextlib.contextmanager
    def tolerated(self) -> Iterator[None]:
        """Reports what could not be saved, or ends the run, as the config says."""
        try:
            yield
        except RefusedError as error:
            if self.config.checkpoint.when_full == "end":
                raise
            self.report.warn(f"not saved: {error}")

    def stop(self, done: int) -> NoReturn:
        """Saves and ends, as it was told to."""
        self.save_now(done)
        raise Interrupted(f"stopped and saved at step {done}")

    def advance(self, done: int, batch: Batch) -> None:
        """Starts a step, and reports what the one before it has found."""
        when = (self.epoch(done - 1), self.epoch(self.total), [error for _, error in self.progress.errors])
        pace, before = make_pace(self.config, *when), self.health
        given = (self.state, self.totals, self.evaluator.pixels, batch, pace)
        with self.profile.step(done, before):
            self.state, self.totals, self.health = self.train_step(*given)
        # One step waits while another runs. With more, batches pile up on the device, and on simulated ones
        # XLA:CPU comes to a standstill at 32: the threads that launch steps wait for each other.
        self.require_health(done - 1, before)
        self.watchdog.alive()
        self.stopwatch.start()
        self.flush()
        self.report.step(done)
        if done % self.config.train.log_every == 0 or done == self.total:
            rate = learning_rate(self.config.schedule, *when)
            self.unreported, self.totals = (done, self.totals, rate), no_totals(self.mesh)

    def epoch(self, step: int) -> float:
        return float(step / self.epoch_steps)

    @property
    def seconds(self) -> float:
        """That the run took so far, but for what was not saved."""
        return self.progress.seconds + time.monotonic() - self.began

    @property
    def validated(self) -> int:
        """The step of the last validation."""
        errors = self.progress.errors
        return errors[-1][0] if errors else 0

    @property
    def best(self) -> int | None:
        """The step of the lowest validation error, the first of several, if it is to be kept."""
        errors = self.progress.errors if self.config.checkpoint.keep_best else []
        return min(errors, key=lambda pair: pair[1], default=[None])[0]

    def evaluation_due(self, done: int) -> bool:
        return done == self.total or done // self.period > (done - 1) // self.period

    def flush(self) -> None:
        """Reports the figures of a step whose successor is already under way."""
        if self.unreported is None:
            return
        (step, totals, rate), self.unreported = self.unreported, None
        means = totals.means()
        pace, waiting = self.stopwatch.lap(step)
        speed = {"images_per_second": pace * self.config.train.batch_size}
        beside = Beside(self.epoch(step), waiting, memory_used())
        self.report.figures(step, "train", {**means, "learning_rate": rate, **speed}, beside)
        if warning := self.alarm(step, means["loss"]):
            self.report.warn(warning)

    def settle(self, done: int) -> None:
        """Waits for the last step, and reports what it has found."""
        self.require_health(done, self.health)
        self.flush()

    def validate(self, done: int) -> dict[str, float]:
        """Validation figures, whose error the plateau rule sees."""
        self.settle(done)  # the step under way is training's time
        began = time.monotonic()

        def tell(_: int) -> None:
            self.watchdog.alive()
            if self.guard.asked():
                self.stop(done)

        values = self.evaluator(self.state, tell)
        self.progress.errors.append((done, values["top1_error"]))
        self.report.figures(done, "validation", values)
        self.require(math.isfinite(values["loss"]), "validation loss", done)
        self.report.events.weights(done, self.state.params)
        self.stopwatch.skip(time.monotonic() - began)
        return values

    def save(self, done: int) -> None:
        """Starts a checkpoint, once it is certain that it holds numbers."""
        self.settle(done)
        self.require(bool(all_finite(self.state)), "network", done)
        if self.config.checkpoint.keep_best:
            self.checkpoints.kept.errors = dict(self.progress.errors)
        if unwritten := told_by_all(self.workdir.write_out())[0]:  # no process saves if the first does not
            raise RefusedError(unwritten)
        progress = dataclasses.asdict(self.progress) | {"seconds": self.seconds}
        self.checkpoints.save(done, (self.state, self.totals), progress)

    def finish(self, recipe: str) -> None:
        """The last checkpoint and the closing figures."""
        lines = [x for x in self.workdir.metrics() if (x["split"], x["step"]) == ("validation", self.total)]
        if not agreed(bool(lines)):
            lines = [self.validate(self.total)]
        self.save_now(self.total)
        for line in lines:  # none where another process has them
            figures = {name: line[name] for name in ("loss", "top1_error", "top5_error")}
            self.report.figures(self.total, "final", figures)
            if unwritten := self.workdir.write_out():
                raise RefusedError(unwritten)
            self.report.warn(closing(self.config, self.workdir, figures, self.seconds, recipe))

    def require_health(self, step: int, health: Health | None) -> None:
        """Ends a run whose step has found what is no number; it has changed nothing."""
        if health is None:  # there was none since the start
            return
        loss, norms = jax.device_get((health.loss, health.norms))
        if math.isfinite(loss) and all(map(math.isfinite, norms)):
            return
        layers = dict(zip(self.config.network.layers(), map(float, norms), strict=True))
        rows = self.order(step - 1).tolist()
        where = self.workdir.write_divergence(
            {"step": step, "loss": float(loss), "gradient_norms": layers, "rows": rows}
        )
        listed = ", ".join(f"{name} {norm:.3g}" for name, norm in layers.items())
        self.diverged(f"step {step}: loss {loss:.4g}, norms of gradients {listed}; {where}")

    def require(self, finite: bool, what: str, step: int) -> None:
        """Ends a run that is beyond repair."""
        if not finite:
            self.diverged(f"the {what} is not finite any more at step {step}")

    def diverged(self, words: str) -> NoReturn:
        with contextlib.suppress(RefusedError):
            self.checkpoints.wait()
        saved = self.checkpoints.latest()
        raise DivergedError(
            f"{words}; {'nothing was saved' if saved is None else f'step {saved} was saved before'}; lower "
            "schedule.learning_rate, raise schedule.warmup_epochs, or look at the data"
        )
