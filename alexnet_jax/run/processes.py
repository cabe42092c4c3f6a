"""Around every command: quiet libraries, flags, devices, one-line errors and exit codes."""

import dataclasses
import os
import re
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

# Before anything imports TensorFlow: it is only read by it, and talks too much.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from alexnet_jax.build import build
from alexnet_jax.config import Config
from alexnet_jax.errors import STOPPED, ConfigError, Interrupted, LostError, UserError
from alexnet_jax.network.shapes import layer_sizes
from alexnet_jax.run.guard import leave


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
        raise ConfigError(_last_line(error)) from error
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
        raise ConfigError(_last_line(error)) from error
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


def command() -> str:
    """What was typed to start this, as a shell reads it."""
    module = sys.modules["__main__"].__spec__
    return shlex.join(["python", *(["-m", module.name] if module else [sys.argv[0]]), *sys.argv[1:]])


def shorter(path: Path) -> str:
    """A path as it is typed from here."""
    here = Path.cwd()
    return os.path.relpath(path, here) if path.is_relative_to(here) else str(path)


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


def chosen(
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


def run(main: Callable[..., None], words: int | None = 0, *, looks: bool = False) -> None:
    """Runs a command: parses its flags, prints what went wrong in one line, exits with its code.

    Up to so many `words` that are no flags are its arguments; None: any number. One that only `looks` at what
    there is ends without a word where nobody reads on, as after `| head`.
    """

    def checked(arguments: Sequence[str]) -> None:
        if words is not None and len(arguments) > 1 + words:
            raise ConfigError(f"unexpected argument {arguments[1 + words]!r}; flags start with --")
        main(*arguments[1:])

    try:
        signal.signal(signal.SIGINT, leave)  # until what can be saved has its own way
        if os.getpid() == 1:  # of a container: the kernel keeps from it what it has no handler for
            signal.signal(signal.SIGTERM, leave)
        if looks:
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        logging.set_verbosity(logging.FATAL)  # what goes wrong is raised too
        app.run(lambda arguments: _guarded(checked, arguments), flags_parser=_parse)
    except KeyboardInterrupt:
        sys.exit(STOPPED)


def _require_config(flag: flags.FlagHolder[ConfigDict]) -> None:
    if flag.value is None:
        raise ConfigError("--config is missing; try --config=configs/quickstart.py")


def _guarded(main: Callable[[Sequence[str]], None], arguments: Sequence[str]) -> None:
    try:
        main(arguments)
    except UserError as error:
        _end(error)
    finally:
        # Where one task has ended srun tells the others to, which are about to, with codes of their own. As
        # Python ends it gives a signal its usual meaning back, unless it is ignored.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _parse(arguments: Sequence[str]) -> list[str]:
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
    if isinstance(error, LostError):
        os._exit(error.exit_code)  # JAX would wait for those who are gone
    sys.exit(error.exit_code)
