"""Several networks asked as one (section 6): the mean of their probabilities, evenly or by fitted weights.

Probabilities come and go as logarithms: what a network that is very sure thinks least of would round to 0.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from alexnet_jax.errors import ConfigError, RefusedError
from alexnet_jax.learning.metrics import score
from alexnet_jax.trained.member import Member

FIRST_STEP, LAST_STEP = 0.5, 0.02  # of the search, where an even weight is 1


def evaluate_together(members: Sequence[Member], fitted: bool) -> dict[str, Any]:
    """The metrics of the ensemble, and of each member."""
    check_alike(members)
    asked, answers, labels = [], [], None
    for member in members:
        step, found, theirs = member.predict()
        if labels is not None and not np.array_equal(labels, theirs):
            raise RefusedError(
                f"{member.workdir.path} was evaluated on other pictures than {members[0].workdir.path}"
            )
        labels = theirs
        answers.append(found)
        asked.append({"workdir": str(member.workdir.path), "step": step, **metrics_of(found, labels)})
    weights = fit_weights(np.stack(answers), labels) if fitted else np.full(len(members), 1 / len(members))
    for one, weight in zip(asked, weights, strict=True):
        one["weight"] = round(float(weight), 4)
    together = metrics_of(mean_of(np.stack(answers), weights), labels)
    views = members[0].config.evaluation.views
    return {
        "step": [one["step"] for one in asked],
        "images": len(labels),
        "views": views,
        **together,
        "members": asked,
    }


def check_alike(members: Sequence[Member]) -> None:
    """Refuses members that do not know the same classes of the same pictures."""
    first, *others = [
        (m.config.data.name, m.config.network.classes, m.config.evaluation.views) for m in members
    ]
    for member, other in zip(members[1:], others, strict=True):
        if other != first:
            raise ConfigError(
                f"{members[0].workdir.path} knows {first[1]} classes of {first[0]} by {first[2]} views, "
                f"{member.workdir.path} {other[1]} of {other[0]} by {other[2]}: they cannot be averaged"
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
