"""The run that another begins with, as for the paper's pre-trained nets: what they must have in common."""

import dataclasses
from typing import Any

from alexnet_jax.config.changes import changes
from alexnet_jax.config.fields import CLASSIFIER, LAYERS, NORMS, Config, NetworkConfig
from alexnet_jax.errors import ConfigError, RefusedError
from alexnet_jax.storage.workdir import Workdir


def check_ancestor(config: Config) -> None:
    """Refuses to begin with a run that has learnt nothing, or whose layers are not those of this config."""
    if not config.init_from:
        return
    ancestor = Workdir(config.init_from)
    theirs = ancestor.read_config()
    if not ancestor.begun:
        raise RefusedError(f"init_from={config.init_from} has no checkpoint yet")
    for change in changes(_trunk(theirs.network), _trunk(config.network)):
        raise ConfigError(
            f"init_from={config.init_from} is a run with network.{change.name}={change.before}, this config "
            f"says {change.now}: its weights do not fit"
        )


def _trunk(network: NetworkConfig) -> dict[str, Any]:
    """The fields of the network that decide what the layers below the classifier compute."""
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
