"""Flags that several commands share, read into a checked config."""

import dataclasses
import re
import sys
from collections.abc import Sequence

from absl import flags
from ml_collections import ConfigDict, config_flags

from alexnet_jax.cli import last_line
from alexnet_jax.config.building import build
from alexnet_jax.config.fields import Config
from alexnet_jax.errors import ConfigError
from alexnet_jax.network.shapes import layer_sizes


def define_config_flag(
    values: flags.FlagValues = flags.FLAGS, words: list[str] | None = None
) -> flags.FlagHolder[ConfigDict]:
    """`--config=FILE[:VARIANT]` and `--config.a.b=value`, from `words` or else from the command line."""
    # New attributes are let in here and refused by `build`, which knows the nearest name.
    return config_flags.DEFINE_config_file(
        "config", lock_config=False, accept_new_attributes=True, flag_values=values, sys_argv=words
    )


def read_config(flag: flags.FlagHolder[ConfigDict]) -> Config:
    """The checked config that the flags describe."""
    _require_config(flag)
    try:
        values = flag.value.to_dict()
    except Exception as error:  # a file that is not there, or fails, is noticed only now
        raise ConfigError(last_line(error)) from error
    config = build(values)
    layer_sizes(config.network)  # refuses pictures that are too small for it
    return config


def read_words(words: Sequence[str]) -> Config:
    """The config that another process reads from these flags, or what it would complain of."""
    values, words = flags.FlagValues(), [sys.argv[0], *words]
    flag = define_config_flag(values, words)
    try:
        values(words)
    except Exception as error:  # a config file is a program, and can fail in any way
        raise ConfigError(last_line(error)) from error
    return read_config(flag)


def recipe(flag: flags.FlagHolder[ConfigDict]) -> str:
    """FILE[:VARIANT], as it was typed."""
    _require_config(flag)
    return flags.FLAGS[flag.name].config_filename


def config_file(flag: flags.FlagHolder[ConfigDict]) -> str:
    """FILE of `--config=FILE`, where variants are named by another flag."""
    path = recipe(flag)
    file, colon, variant = path.partition(":")
    if colon:
        raise ConfigError(f"--config={path} must not name a variant; try --variants={variant}")
    return file


def config_words() -> tuple[str, ...]:
    """Every `--config.a.b=value` or `--config.a.b value`, as it was typed."""
    words, found = iter(flags.FLAGS.read_flags_from_files(sys.argv[1:], force_gnu=False)), []
    for word in words:
        if re.match(r"--?(no)?config\.", word):
            found.append(word)
            name = word.lstrip("-")
            if name in flags.FLAGS and not flags.FLAGS[name].boolean:
                found.append(next(words))
    return tuple(found)


def require(flag: flags.FlagHolder[str | None], example: str) -> str:
    """The value of a flag that must be given."""
    if not flag.value:
        raise ConfigError(f"--{flag.name} is missing; try --{flag.name}={example}")
    return flag.value


def read_mesh(text: str) -> dict[str, int]:
    """The config fields of a mesh written as DATAxTOWER."""
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if match is None:
        raise ConfigError(f"--mesh={text} must be DATAxTOWER, as in 1x2")
    return {"data": int(match[1]), "tower": int(match[2])}


def with_flags(
    config: Config, views: int | None = None, batch_size: int | None = None, mesh: str | None = None
) -> Config:
    """The config of a run with what flags say of its use instead."""
    values = dataclasses.asdict(config)
    if views is not None:
        values["evaluation"]["views"] = views
    if batch_size is not None:
        values["evaluation"]["batch_size"] = batch_size
    if mesh is not None:
        values["mesh"] |= read_mesh(mesh)
        if values["mesh"]["cpu_devices"]:  # the run's own were simulated: so are these
            values["mesh"]["cpu_devices"] = values["mesh"]["data"] * values["mesh"]["tower"]
    return build(values)


def read_share(flag: flags.FlagHolder[str]) -> tuple[int, int]:
    """The number of a host or a job, and how many of them there are."""
    match = re.fullmatch(r"(\d+)/(\d+)", flag.value)
    if match is None or int(match[1]) >= int(match[2]):
        raise ConfigError(
            f"--{flag.name}={flag.value} must be a number below a count / that count, as in 0/4"
        )
    return int(match[1]), int(match[2])


def _require_config(flag: flags.FlagHolder[ConfigDict]) -> None:
    if flag.value is None:
        raise ConfigError("--config is missing; try --config=configs/quickstart.py")
