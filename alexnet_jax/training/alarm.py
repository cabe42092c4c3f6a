"""AlexNet often stays where guessing puts its loss, at ln(classes): a warning that says what to change."""

import math
from collections.abc import Sequence
from typing import Any

from alexnet_jax.config.fields import Config
from alexnet_jax.data.packed import packing_command

PROGRESS, WORSE = 0.99, 1.05  # of ln(classes): losses below it know more than guessing, above it less


class StallAlarm:
    """Called with each logged training loss; warns once, `train.stall_steps` after the last progress."""

    def __init__(self, config: Config, lines: Sequence[dict[str, Any]]):
        """`lines` are the metrics that the run has logged so far."""
        self.config, self.guessing = config, math.log(config.network.classes)
        self.progress, self.quiet = 0, False
        for line in lines:
            if line["split"] == "train" and line["loss"] is not None:
                self(line["step"], line["loss"])

    def __call__(self, step: int, loss: float) -> str | None:
        """The warning, when it is due."""
        if loss < PROGRESS * self.guessing:
            self.progress, self.quiet = step, False
        patience = self.config.train.stall_steps
        if not patience or self.quiet or step - self.progress < patience:
            return None
        self.quiet = True
        return self.warning(step - self.progress, loss)

    def warning(self, steps: int, loss: float) -> str:
        classes = self.config.network.classes
        head = (
            f"warning: for {steps} steps the training loss was no better than guessing: it is {loss:.3f}, "
            f"guessing among {classes} classes has ln({classes}) = {self.guessing:.3f}. What it may be:"
        )
        return "\n".join([head, *(f"  - {cause}" for cause in self.causes(loss))])

    def causes(self, loss: float) -> list[str]:
        """The likeliest first; only what this config can be guilty of."""
        layers, schedule = self.config.network.layers(), self.config.schedule
        ones = [name for name, layer in layers.items() if layer.bias >= 1]
        small = [name for name, layer in layers.items() if layer.deviation <= 0.01 and name != "conv1"]
        rate, causes = schedule.learning_rate, []
        if self.config.network.activation == "sigmoid":
            causes.append("sigmoids pass little on: try --config.network.activation=relu")
        too_high = f"{rate:g} is too high a rate: try --config.schedule.learning_rate={rate / 10:g}"
        if ones:
            causes.append(
                f"the first biases of {', '.join(ones)} are large: try --config.network.{ones[0]}.bias=0.1, "
                "and so on"
            )
        if small:
            causes.append(
                f"the first weights of {', '.join(small)} are small: try --config.network.{small[0]}."
                "deviation=0.03, and so on"
            )
        # Far above guessing weights have run away, which beginnings do not explain.
        causes.insert(0 if loss > WORSE * self.guessing else len(causes), too_high)
        return [
            *causes,
            f"the pictures or their mean are damaged: {packing_command(self.config.data)} --verify says so",
            "bad luck: try another --config.seed",
        ]
