"""Checks that Weights & Biases can record a run, before anything is computed.

It is not among the requirements, and is imported only where a config names a project.
"""

import importlib.util
import os
from types import ModuleType

from alexnet_jax.errors import ConfigError

AT_HOME = ("offline", "disabled", "dryrun")  # modes that need no account


def check_wandb(project: str) -> None:
    """Refuses a project that could not be logged to."""
    if not project:
        return
    found = importlib.util.find_spec("wandb")
    if found is None or found.origin is None:  # of a mere folder of that name
        raise ConfigError(f"--config.wandb={project} needs another package: pip install wandb")
    if os.environ.get("WANDB_MODE") in AT_HOME:
        return
    try:
        known = load_wandb().login(prompt=False, verify=False)
    except Exception as error:  # of a key that is none, or of a version that has no such function
        words = f"--config.wandb={project}: {error}"
        raise ConfigError(f"{words}; wandb login, or pip install -U wandb") from error
    if not known:
        raise ConfigError(
            f"--config.wandb={project} needs an account: wandb login, or set WANDB_MODE=offline"
        )


def load_wandb() -> ModuleType:
    """The package, silenced."""
    os.environ.setdefault("WANDB_SILENT", "true")
    import wandb

    return wandb
