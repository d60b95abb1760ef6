"""Every error a user can meet: what failed, why, and the next thing to try, each kind with its exit code."""

from __future__ import annotations


class RlaifError(Exception):
    """Base of all errors meant for people. `str()` gives the whole message; `exit_code` is what the command returns."""

    exit_code = 1

    def __init__(self, what: str, why: str = "", try_next: str = "") -> None:
        self.what, self.why, self.try_next = what, why, try_next
        super().__init__("\n".join(part for part in (what, why, f"Try: {try_next}" if try_next else "") if part))


class RunFailed(RlaifError):
    """The work itself failed: out of memory, disk full, training stopped by the monitor."""


class UsageError(RlaifError):
    """A flag, a config key, a file or a folder that cannot be used as given."""

    exit_code = 2


class ProblemFileError(UsageError):
    """A problem file that cannot be used; names the file, the line and the field."""

    def __init__(self, path: object, line: int | None, field: str | None, why: str, try_next: str = "") -> None:
        where = f"{path}" + (f", line {line}" if line is not None else "") + (f", field '{field}'" if field else "")
        self.path, self.line, self.field = path, line, field
        super().__init__(f"Cannot use {where}", why, try_next)


class EnvironmentFailure(RlaifError):
    """The machine lacks something: no model, no judge, no sandbox, no network."""

    exit_code = 3


class ModelNotFound(EnvironmentFailure):
    """A model name that is no folder, not in the cache, and not to be had from where this machine can reach."""


class SandboxUnavailable(EnvironmentFailure):
    """No isolation can be had, or the sandbox broke and could not be restarted."""


class JudgeUnavailable(EnvironmentFailure):
    """The judge cannot be loaded or reached at all (one failed judgement is a value, not this)."""


class BelowThreshold(RlaifError):
    """`--fail-under` was given and the result is below it."""

    exit_code = 4


class Interrupted(RlaifError):
    """Ctrl-C; a checkpoint was written and `--resume` goes on from it."""

    exit_code = 130
