"""The frame of every command: quiet libraries, one-line errors and exit codes."""

import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

# Before anything imports TensorFlow: it is only read by it, and talks too much.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

from absl import app, flags, logging

from alexnet_jax.errors import STOPPED, ConfigError, Interrupted, LostError, UserError
from alexnet_jax.signals import leave


def run(main: Callable[..., None], words: int | None = 0, *, pipeable: bool = False) -> None:
    """Runs a command: parses its flags, prints what went wrong in one line, exits with its code.

    Up to `words` arguments may stand beside the flags; None: any number. A `pipeable` command only reads, and
    ends without a word when its output is closed, as by `| head`.
    """

    def checked(arguments: Sequence[str]) -> None:
        if words is not None and len(arguments) > 1 + words:
            raise ConfigError(f"unexpected argument {arguments[1 + words]!r}; flags start with --")
        main(*arguments[1:])

    try:
        signal.signal(signal.SIGINT, leave)  # until training handles it
        if os.getpid() == 1:  # of a container: the kernel drops signals that it does not handle
            signal.signal(signal.SIGTERM, leave)
        if pipeable:
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        logging.set_verbosity(logging.FATAL)  # errors are raised as well
        app.run(lambda arguments: _guarded(checked, arguments), flags_parser=_parse)
    except KeyboardInterrupt:
        sys.exit(STOPPED)


def command() -> str:
    """The command line that started this process, quoted for a shell."""
    module = sys.modules["__main__"].__spec__
    program = ["-m", module.name.removesuffix(".__main__")] if module else [sys.argv[0]]
    return shlex.join(["python", *program, *sys.argv[1:]])


def shorter(path: Path) -> str:
    """A path as it is typed from here."""
    here = Path.cwd()
    return os.path.relpath(path, here) if path.is_relative_to(here) else str(path)


def _guarded(main: Callable[[Sequence[str]], None], arguments: Sequence[str]) -> None:
    try:
        main(arguments)
    except UserError as error:
        _end(error)
    finally:
        # When one task has ended srun sends TERM to the others, which would lose their own exit codes. Python
        # restores the usual meaning of a signal as it ends, unless it is ignored.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _parse(arguments: Sequence[str]) -> list[str]:
    try:
        return flags.FLAGS(arguments)
    except Exception as error:  # a config file is a program, and can fail in any way
        _end(ConfigError(last_line(error)))


def last_line(error: Exception) -> str:
    """The last line of an error's text: errors in a config file arrive as whole tracebacks."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    message = lines[-1].removeprefix("ValueError: ") if lines else "no reason given"
    expected = isinstance(error, flags.Error | OSError | ValueError)
    return message if expected else f"{type(error).__name__}: {message}"


def _end(error: UserError) -> None:
    prefix = "" if isinstance(error, Interrupted) else "error: "
    print(f"{prefix}{error}", file=sys.stderr, flush=True)
    if isinstance(error, LostError):
        os._exit(error.exit_code)  # JAX would wait for the lost process
    sys.exit(error.exit_code)
