"""Training (section 5): restore, step, evaluate, save, stop, in this order."""

import contextlib
import math
import time
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NoReturn

import jax
from jax.sharding import Mesh

from alexnet_jax.cluster.agreement import from_first
from alexnet_jax.config.fields import Config
from alexnet_jax.data.batches import PackedSet, TrainingOrder
from alexnet_jax.errors import DivergedError, Interrupted, RefusedError
from alexnet_jax.learning.metrics import Totals, all_finite
from alexnet_jax.learning.schedule import learning_rate, make_pace
from alexnet_jax.learning.state import Batch
from alexnet_jax.learning.step import Health, TrainStep, make_train_step, no_totals
from alexnet_jax.reporting.closing import closing
from alexnet_jax.reporting.overview import overview
from alexnet_jax.reporting.profile import Profile
from alexnet_jax.reporting.report import HostStatus, Report, metrics_words
from alexnet_jax.signals import Guard
from alexnet_jax.storage.checkpoint import Checkpoints, Retention
from alexnet_jax.storage.workdir import Workdir
from alexnet_jax.training.alarm import StallAlarm
from alexnet_jax.training.evaluation import Evaluator
from alexnet_jax.training.feed import feed
from alexnet_jax.training.opening import Run, open_run
from alexnet_jax.training.saving import Saver
from alexnet_jax.training.stopwatch import Stopwatch, memory_used
from alexnet_jax.training.watchdog import Watchdog


def train(
    config: Config, workdir: Workdir, packed: PackedSet, mesh: Mesh, *, quiet: bool = False, recipe: str = ""
) -> None:
    """Trains to the end, from the start or from the newest checkpoint.

    `recipe` is what --config was given, for the commands that are named at the end.
    """
    images = packed.images("train")
    epoch, total = config.train.epoch_steps(images), config.train.length(images)
    epochs = config.checkpoint.keep_epochs
    retention = Retention(config.checkpoint.keep, lambda step: int(step / epoch // epochs) if epochs else 0)
    with (
        Guard() as guard,
        Watchdog(config.limits.stuck) as watchdog,
        contextlib.closing(Checkpoints(workdir.checkpoints, retention)) as checkpoints,
    ):
        if is_complete(config, workdir, checkpoints, total):
            return
        run, changed = open_run(config, workdir, packed, mesh, checkpoints)
        first = int(run.state.step)
        with (
            contextlib.closing(Report(config, workdir, first, total, quiet=quiet)) as report,
            contextlib.closing(Profile(workdir, first, config.profile_steps, report.say)) as profile,
        ):
            report.say(overview(config, mesh, run.state.params, packed, first, total, workdir.path))
            for change in changed:
                report.warn(f"config {change.name}={change.now}, until now {change.before}")
            if not first:
                report.events.config(config)
            report.events.kernels(first, run.state.params)
            saver = Saver(checkpoints, workdir, config.checkpoint, report.warn)
            given = (config, workdir, packed, mesh, run, guard, watchdog, saver, report, profile)
            training = Training(*given, first, total, epoch)
            training.learn()
            training.finish(recipe)


def is_complete(config: Config, workdir: Workdir, checkpoints: Checkpoints, total: int) -> bool:
    """Whether there is nothing left to do, which then is said."""
    final, latest = workdir.final(), checkpoints.latest()
    if not from_first(final is not None and final["step"] >= total and final["step"] == latest):
        return False
    workdir.check_metrics(config)
    if final:
        print(f"already complete: step {latest}, validation {metrics_words(final)}")
    return True


@dataclass
class Training:
    """A run that is opened, and all that it needs to go on."""

    config: Config
    workdir: Workdir
    packed: PackedSet
    mesh: Mesh
    run: Run
    guard: Guard
    watchdog: Watchdog
    saver: Saver
    report: Report
    profile: Profile
    first: int  # the step at which this start begins
    total: int
    epoch_steps: Fraction
    began: float = field(default_factory=time.monotonic)
    unreported: tuple[int, Totals, float] | None = None  # step, totals since the line before, learning rate

    def __post_init__(self) -> None:
        train, images = self.config.train, self.packed.images("train")
        self.step: TrainStep = make_train_step(self.config, self.mesh)
        self.evaluator = Evaluator(self.config, self.mesh, self.packed)
        self.alarm = StallAlarm(self.config, self.workdir.metrics())
        self.stopwatch = Stopwatch(self.first)
        fixed, parts = train.order == "fixed", train.parts_of(images)
        self.order = TrainingOrder(self.config.seed, images, train.batch_size, fixed=fixed, parts=parts)
        self.period = Fraction(str(self.config.evaluation.every_epochs)) * self.epoch_steps

    def learn(self) -> None:
        """Step by step, from where the run is."""
        run, saver = self.run, self.saver
        if self.first and self.evaluation_due(self.first) and run.validated < self.first:
            self.validate(self.first)  # it was cut short
        steps = range(self.first, self.total)
        trace = self.workdir.trace if self.config.data.trace else None
        batches = feed(self.packed, "train", self.order, steps, self.mesh, self.config.data, trace)
        with contextlib.closing(batches):
            for done, batch in enumerate(self.stopwatch.waiting(batches, self.idle), self.first + 1):
                before = run.health
                self.start_step(done, batch, before)
                # One step waits while another runs. With more, batches pile up on the device, and on
                # simulated ones XLA:CPU comes to a standstill at 32: the threads that launch steps wait for
                # each other.
                self.require_health(done - 1, before)
                self.watchdog.alive()
                self.stopwatch.start()
                self.flush()
                self.report.step(done)
                self.collect(done)
                if self.evaluation_due(done):
                    self.validate(done)
                if self.guard.poll():
                    self.stop(done)
                if saver.due(done) or (self.config.checkpoint.keep_best and done == run.best):
                    saver.start(done, *self.snapshot(done))
                if saver.finish_due(done):
                    saver.finish()
                    self.watchdog.alive()

    def finish(self, recipe: str) -> None:
        """The last checkpoint and the closing metrics."""
        lines = [x for x in self.workdir.metrics() if (x["split"], x["step"]) == ("validation", self.total)]
        if not from_first(bool(lines)):
            lines = [self.validate(self.total)]
        self.saver.now(self.total, *self.snapshot(self.total))
        for line in lines:  # none where another process has them
            values = {name: line[name] for name in ("loss", "top1_error", "top5_error")}
            self.report.metrics(self.total, "final", values)
            if unwritten := self.workdir.write_out():
                raise RefusedError(unwritten)
            self.report.warn(closing(self.config, self.workdir, values, self.seconds, recipe))

    def stop(self, done: int) -> NoReturn:
        """Saves and ends, as a signal asked for."""
        self.saver.now(done, *self.snapshot(done))
        raise Interrupted(f"stopped and saved at step {done}")

    def idle(self) -> bool:
        """Whether the devices have nothing to do."""
        return self.run.health is None or self.run.health.loss.is_ready()

    def start_step(self, done: int, batch: Batch, before: Health | None) -> None:
        run, errors = self.run, [error for _, error in self.run.errors]
        pace = make_pace(self.config, self.epoch(done - 1), self.epoch(self.total), errors)
        with self.profile.step(done, before):
            given = (run.state, run.totals, self.evaluator.pixels, batch, pace)
            run.state, run.totals, run.health = self.step(*given)

    def collect(self, done: int) -> None:
        """Takes the totals of the steps up to a logged one; `flush` reports them one step later."""
        if done % self.config.train.log_every and done != self.total:
            return
        errors = [error for _, error in self.run.errors]
        epochs = (self.epoch(done - 1), self.epoch(self.total))
        rate = learning_rate(self.config.schedule, *epochs, errors)
        self.unreported, self.run.totals = (done, self.run.totals, rate), no_totals(self.mesh)

    def flush(self) -> None:
        """Reports the metrics of a step whose successor is already under way."""
        if self.unreported is None:
            return
        (step, totals, rate), self.unreported = self.unreported, None
        means = totals.means()
        pace, waiting = self.stopwatch.lap(step)
        speed = {"images_per_second": pace * self.config.train.batch_size}
        host = HostStatus(self.epoch(step), waiting, memory_used())
        self.report.metrics(step, "train", {**means, "learning_rate": rate, **speed}, host)
        if warning := self.alarm(step, means["loss"]):
            self.report.warn(warning)

    def settle(self, done: int) -> None:
        """Waits for the newest step, and reports what it has found."""
        self.require_health(done, self.run.health)
        self.flush()

    def evaluation_due(self, done: int) -> bool:
        return done == self.total or done // self.period > (done - 1) // self.period

    def validate(self, done: int) -> dict[str, float]:
        """Validation metrics, whose error the plateau rule sees."""
        self.settle(done)  # the step under way is training's time
        began = time.monotonic()

        def after_batch(_: int) -> None:
            self.watchdog.alive()
            if self.guard.poll():
                self.stop(done)

        values = self.evaluator(self.run.state, after_batch)
        self.run.errors.append((done, values["top1_error"]))
        self.report.metrics(done, "validation", values)
        if not math.isfinite(values["loss"]):
            self.diverged(f"the validation loss is not finite any more at step {done}")
        self.report.events.weights(done, self.run.state.params)
        self.stopwatch.skip(time.monotonic() - began)
        return values

    def snapshot(self, done: int) -> tuple[Any, dict[str, Any]]:
        """Arrays and progress for a checkpoint, once it is certain that they are numbers."""
        self.settle(done)
        if not all_finite(self.run.state):
            self.diverged(f"the network is not finite any more at step {done}")
        if self.config.checkpoint.keep_best:
            self.saver.checkpoints.retention.errors = dict(self.run.errors)
        return self.run.arrays, self.run.progress(self.seconds)

    def epoch(self, step: int) -> float:
        return float(step / self.epoch_steps)

    @property
    def seconds(self) -> float:
        """The time of the run, without what was not saved."""
        return self.run.seconds + time.monotonic() - self.began

    def require_health(self, step: int, health: Health | None) -> None:
        """Ends a run whose step has found what is no number; it has changed nothing."""
        if health is None:  # there was none since the start
            return
        loss, norms = jax.device_get((health.loss, health.norms))
        if math.isfinite(loss) and all(map(math.isfinite, norms)):
            return
        layers = dict(zip(self.config.network.layers(), map(float, norms), strict=True))
        found = {"step": step, "loss": float(loss), "gradient_norms": layers}
        where = self.workdir.write_divergence(found | {"rows": self.order(step - 1).tolist()})
        listed = ", ".join(f"{name} {norm:.3g}" for name, norm in layers.items())
        self.diverged(f"step {step}: loss {loss:.4g}, norms of gradients {listed}; {where}")

    def diverged(self, words: str) -> NoReturn:
        """Ends a run that is beyond repair."""
        with contextlib.suppress(RefusedError):
            self.saver.checkpoints.wait()
        saved = self.saver.checkpoints.latest()
        raise DivergedError(
            f"{words}; {'nothing was saved' if saved is None else f'step {saved} was saved before'}; lower "
            "schedule.learning_rate, raise schedule.warmup_epochs, or look at the data"
        )
