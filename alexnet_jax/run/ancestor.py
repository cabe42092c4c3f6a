"""The run that another begins with, as for the paper's pre-trained nets: what they must have in common."""

import dataclasses
from typing import Any

from alexnet_jax.config import LAYERS, NORMS, Config
from alexnet_jax.errors import ConfigError, RefusedError
from alexnet_jax.run.workdir import Workdir, differences

CLASSIFIER = "fc8"


def check_ancestor(config: Config) -> None:
    """Refuses to begin with a run that has learnt nothing, or whose layers are not those of this config."""
    if not config.init_from:
        return
    ancestor = Workdir(config.init_from)
    theirs = ancestor.read_config()
    if not ancestor.begun:
        raise RefusedError(f"init_from={config.init_from} has no checkpoint yet")
    for name, old, new in differences(_trunk(theirs), _trunk(config)):
        raise ConfigError(
            f"init_from={config.init_from} is a run with network.{name}={old}, this config says {new}: "
            "what it has learnt does not fit"
        )


def _trunk(config: Config) -> dict[str, Any]:
    """The fields of the network that decide what the layers below the classifier compute."""
    network = config.network
    fields = dataclasses.asdict(network)
    for name in ("classes", CLASSIFIER, "dropout", "precision"):
        del fields[name]
    fields["crossings"] = sorted(set(network.crossings) - {CLASSIFIER})
    del fields["batch_norm"]["decay"]  # of averages, not of what is made of them
    for layer in LAYERS[: LAYERS.index(CLASSIFIER)]:
        if not fields[layer]["width"]:
            fields[layer] = {"width": 0}
        for initial in ("deviation", "bias"):
            fields[layer].pop(initial, None)
    used = {operation for conv in network.convs().values() for operation in conv.then}
    for norm in set(NORMS) - used:
        del fields[norm]
    return fields
