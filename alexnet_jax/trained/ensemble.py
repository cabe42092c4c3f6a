"""An ensemble (section 6): the mean of their probabilities, evenly or by fitted weights.

Probabilities come and go as logarithms: what a network that is very sure thinks least of would round to 0.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np

from alexnet_jax.config.fields import Config
from alexnet_jax.errors import ConfigError, RefusedError
from alexnet_jax.learning.metrics import score
from alexnet_jax.storage.workdir import Workdir
from alexnet_jax.trained.opened import TrainedRun

FIRST_STEP, LAST_STEP = 0.5, 0.02  # of the search, where an even weight is 1


def evaluate_together(runs: Iterable[TrainedRun], fitted: bool) -> dict[str, Any]:
    """The metrics of the ensemble, and of each member; one is opened after the other."""
    members, answers, labels = [], [], None
    for run in runs:
        found, theirs = run.answers
        if labels is not None and not np.array_equal(labels, theirs):
            first = members[0]["workdir"]
            raise RefusedError(f"{run.workdir.path} was evaluated on other pictures than {first}")
        labels, views = theirs, run.config.evaluation.views
        answers.append(found)
        members.append({"workdir": str(run.workdir.path), "step": run.step, **metrics_of(found, labels)})
    weights = fit_weights(np.stack(answers), labels) if fitted else np.full(len(members), 1 / len(members))
    for member, weight in zip(members, weights, strict=True):
        member["weight"] = round(float(weight), 4)
    together = metrics_of(mean_of(np.stack(answers), weights), labels)
    steps = [member["step"] for member in members]
    return {"step": steps, "images": len(labels), "views": views, **together, "members": members}


def check_alike(workdirs: Sequence[Workdir], configs: Sequence[Config]) -> None:
    """Refuses runs that do not know the same classes of the same pictures."""
    first, *others = [(c.data.name, c.network.classes, c.evaluation.views) for c in configs]
    for workdir, other in zip(workdirs[1:], others, strict=True):
        if other != first:
            raise ConfigError(
                f"{workdirs[0].path} knows {first[1]} classes of {first[0]} by {first[2]} views, "
                f"{workdir.path} {other[1]} of {other[0]} by {other[2]}: they cannot be averaged"
            )


@jax.jit
def mean_of(answers: jax.Array, weights: jax.Array) -> jax.Array:
    """Log-probabilities of the weighted mean of networks', from theirs [networks, images, classes]."""
    shares = weights.astype(answers.dtype) / weights.sum()
    return jax.nn.logsumexp(answers, axis=0, b=shares[:, None, None])


def metrics_of(answers: jax.Array, labels: np.ndarray) -> dict[str, float]:
    """Loss, top-1 and top-5 error of log-probabilities [images, classes]."""
    return jax.jit(score)(answers, labels).means()


def fit_weights(answers: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Weights by coordinate search, as the authors' tool did it: fewer top-5 errors, then less loss.

    One weight at a time goes up or down by a step, as long as that helps; then steps are halved.
    """
    answers = jax.device_put(answers)
    weights, step = np.ones(len(answers)), FIRST_STEP

    def judge(weights: np.ndarray) -> tuple[float, float]:
        found = metrics_of(mean_of(answers, weights), labels)
        return found["top5_error"], found["loss"]

    best = judge(weights)
    while step >= LAST_STEP:
        before = best
        for place in range(len(weights)):
            for change in (step, -step):
                trial = weights.copy()
                trial[place] = max(0.0, trial[place] + change)
                if trial.any() and (found := judge(trial)) < best:
                    weights, best = trial, found
        if best == before:
            step /= 2
    return weights / weights.sum()
