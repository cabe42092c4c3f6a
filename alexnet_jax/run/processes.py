"""Around every command: quiet libraries, flags, devices, one-line errors and exit codes."""

import os
import re
import sys
from collections.abc import Callable, Sequence

# Before anything imports TensorFlow: it is only read by it, and talks too much.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from alexnet_jax.build import build
from alexnet_jax.config import Config
from alexnet_jax.errors import STOPPED, ConfigError, Interrupted, UserError
from alexnet_jax.network.alexnet import layer_sizes


def define_config_flag() -> flags.FlagHolder[ConfigDict]:
    """`--config=FILE[:VARIANT]` and `--config.a.b=value`."""
    # New attributes are let in here and refused by `build`, which knows the nearest name.
    return config_flags.DEFINE_config_file("config", lock_config=False, accept_new_attributes=True)


def read_config(flag: flags.FlagHolder[ConfigDict]) -> Config:
    """The checked config that the flags describe."""
    if flag.value is None:
        raise ConfigError("--config is missing; try --config=configs/quickstart.py")
    try:
        values = flag.value.to_dict()
    except Exception as error:  # a file that is not there, or fails, is noticed only now
        raise ConfigError(_last_line(error)) from error
    config = build(values)
    layer_sizes(config.network)  # refuses pictures that are too small for it
    return config


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


def read_share(text: str) -> tuple[int, int]:
    """A host's number, and how many hosts there are."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or int(match[1]) >= int(match[2]):
        raise ConfigError(f"--shard={text} must be a number below the count of hosts / that count, as in 0/4")
    return int(match[1]), int(match[2])


def run(main: Callable[..., None], words: int = 0) -> None:
    """Runs a command: parses its flags, prints what went wrong in one line, exits with its code.

    Up to so many `words` that are no flags are its arguments.
    """

    def checked(arguments: Sequence[str]) -> None:
        if len(arguments) > 1 + words:
            raise ConfigError(f"unexpected argument {arguments[1 + words]!r}; flags start with --")
        main(*arguments[1:])

    try:
        logging.set_verbosity(logging.ERROR)
        app.run(lambda arguments: _guarded(checked, arguments), flags_parser=_parse)
    except KeyboardInterrupt:
        sys.exit(STOPPED)


def _guarded(main: Callable[[Sequence[str]], None], arguments: Sequence[str]) -> None:
    try:
        main(arguments)
    except UserError as error:
        _end(error)


def _parse(arguments: Sequence[str]) -> list[str]:
    flags.FLAGS.set_gnu_getopt(True)  # words and flags in any order
    try:
        return flags.FLAGS(arguments)
    except Exception as error:  # a config file is a program, and can fail in any way
        _end(ConfigError(_last_line(error)))


def _last_line(error: Exception) -> str:
    """What a person can use of an error: a config file's own errors arrive as whole tracebacks."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    message = lines[-1].removeprefix("ValueError: ") if lines else "no reason given"
    expected = isinstance(error, flags.Error | OSError | ValueError)
    return message if expected else f"{type(error).__name__}: {message}"


def _end(error: UserError) -> None:
    prefix = "" if isinstance(error, Interrupted) else "error: "
    print(f"{prefix}{error}", file=sys.stderr, flush=True)
    sys.exit(error.exit_code)
