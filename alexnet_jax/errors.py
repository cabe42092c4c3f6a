"""Errors that a user can fix: one line each, and an exit code for scripts."""

COMPLETE, BUG, CONFIG, DIVERGED, REFUSED, PREEMPTED, STOPPED = 0, 1, 2, 3, 4, 42, 130
PASSED_OVER = 1  # all was done but for some files, which were named
LOST = 134  # as a shell names the way in which JAX ends who has lost another process


class UserError(Exception):
    """Ends a command with its message alone, without a traceback."""

    exit_code = BUG

    def __str__(self) -> str:
        """The message in one line, whatever it quotes."""
        return " ".join(super().__str__().splitlines())


class ConfigError(UserError):
    """Flags or a config that cannot work."""

    exit_code = CONFIG


class DivergedError(UserError):
    """The loss is no longer a number."""

    exit_code = DIVERGED


class RefusedError(UserError):
    """Data, a working directory or a checkpoint that must not be used."""

    exit_code = REFUSED


class Interrupted(UserError):
    """Stopped by a signal; what was done is saved."""

    exit_code = PREEMPTED


class LostError(UserError):
    """Another process of the run is gone."""

    exit_code = LOST
