"""What goes wrong for a reason that the user can mend: one line, and an exit code that scripts can read."""

COMPLETE, BUG, CONFIG, DIVERGED, REFUSED, PREEMPTED, STOPPED = 0, 1, 2, 3, 4, 42, 130


class UserError(Exception):
    """Ends a command with its message alone, without a traceback."""

    exit_code = BUG


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
    """Told to stop; what was done is saved."""

    exit_code = PREEMPTED
