"""Which settings a resumed run goes on with: those it was started with, changed only where a change cannot bend what was already done."""

from __future__ import annotations

from rlaif.config import SettingsT, parse_settings
from rlaif.errors import UsageError
from rlaif.runs import RunDir

MAY_CHANGE = frozenset(
    {"output_dir", "resume", "overwrite", "dry_run", "episodes", "save_every", "keep_checkpoints", "eval_every", "stop_on_alarm", "track", "threads"}
)
"""The rest would make the second half of the run another experiment than the first."""

_RESOLVED = {"dtype": ("auto",)}
"""Values that the run has replaced by what they came to: asking for them again is no change."""


def resumed_config(config: SettingsT, run: RunDir, may_change: frozenset[str] = MAY_CHANGE) -> SettingsT:
    """The run's own settings, with those of `config` that were given and are in `may_change`.

    Raises UsageError that names the settings which were given and differ but may not.
    """
    stored = run.read_config()
    if not stored:  # killed in its first second: nothing was done yet
        return config
    saved = parse_settings(type(config), stored, f"{run.path}/config.json")
    given = config.model_fields_set
    different = sorted(name for name in given - may_change if getattr(config, name) not in (getattr(saved, name), *_RESOLVED.get(name, ())))
    if different:
        first = different[0]
        raise UsageError(
            f"Cannot resume {run.path} with another {', '.join(different)}",
            f"it was started with {first} = {getattr(saved, first)!r}, not {getattr(config, first)!r}",
            "leave those flags out to go on as before, or start a new run in another --output_dir",
        )
    return saved.model_copy(update={name: getattr(config, name) for name in (given & may_change) | {"output_dir", "resume"}})
