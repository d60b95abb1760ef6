"""Settings classes as command lines: one way for every command and for the root scripts.

tyro reads the grammar of the flags and writes the help; pydantic alone decides what a value means, so a flag and a key of a config
file fail with the same words. Between them stands `_canonical`, which knows the spellings: `--output_dir` and `--output-dir`,
`--judge api` for `--judge.kind api`, and `--base-url` for `--judge.base-url` where no other flag has that name.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, TypeVar, get_args, get_origin

import tyro
from pydantic import ValidationError

from rlaif.cli.guard import guarded, suggestion
from rlaif.config import Settings, TrainConfig, load_toml
from rlaif.errors import UsageError

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

__all__ = ["TRAIN_EXAMPLE", "CommandLine", "Parsed", "Positional", "guarded", "parse_train", "resolve", "train_command_line"]

SettingsT = TypeVar("SettingsT", bound=Settings)
Values = dict[str, Any]

ALIASES = {"judge": "judge.kind", "output": "output_dir", "out_dir": "output_dir", "model_name": "model"}
"""Short spellings that cannot be derived. One counts only where its target is a flag of the command and it is none itself."""


@dataclass(frozen=True)
class Positional:
    """A word without a flag. `name` is what the help calls it (FILE)."""

    name: str
    help: str
    required: bool = True
    many: bool = False


@dataclass(frozen=True)
class CommandLine(Generic[SettingsT]):
    """One command: its settings class, its words without flags, its switches (`--json`) and what its help says."""

    prog: str
    summary: str
    example: str
    """A line that runs as it stands; the test suite takes it from the help and runs it."""
    settings: type[SettingsT]
    positionals: tuple[Positional, ...] = ()
    switches: Mapping[str, str] = field(default_factory=dict)
    details: str = ""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Values that stand in place of the class's own (the seed's train.py takes some from rlaif_trainer.py)."""

    def parse(self, argv: Sequence[str]) -> Parsed[SettingsT]:
        """Flags over the config file over the defaults. Raises UsageError (exit code 2); `--help` prints and exits 0."""
        return _parse(self, argv)


@dataclass(frozen=True)
class Parsed(Generic[SettingsT]):
    """What a command was asked to do."""

    settings: SettingsT
    words: dict[str, list[str]]
    """By positional name; an optional one that was left out is []."""
    switches: frozenset[str]
    given: frozenset[str]
    """Dotted names of the settings that a flag or the config file named."""

    def word(self, name: str) -> str | None:
        """The one word of a positional, or None."""
        return self.words[name][0] if self.words[name] else None


TRAIN_EXAMPLE = "rlaif train --episodes 20 --dry-run"


def train_command_line(prog: str = "rlaif train", defaults: Mapping[str, Any] | None = None) -> CommandLine[TrainConfig]:
    """The command line of a training run, for `rlaif train` and for `python train.py`."""
    return CommandLine(
        prog,
        "Train a language model to write better Python from AI feedback and execution.",
        TRAIN_EXAMPLE.replace("rlaif train", prog),
        TrainConfig,
        defaults=_dotted(defaults or {}),
    )


def parse_train(argv: Sequence[str], prog: str = "python train.py", defaults: Mapping[str, Any] | None = None) -> TrainConfig:
    """The settings of a training run. `defaults` (nested as in a config file) give way to a config file and to flags. Raises UsageError."""
    return train_command_line(prog, defaults).parse(argv).settings


# -- parsing -----------------------------------------------------------------------------------------------------------------------


def _parse(line: CommandLine[SettingsT], argv: Sequence[str]) -> Parsed[SettingsT]:
    leaves = _leaves(line.settings)
    args, given = _canonical(line, argv, leaves)
    boxed = io.StringIO()
    try:
        with contextlib.redirect_stderr(boxed):
            found = tyro.cli(_twin(line), args=args, prog=line.prog, description=_description(line))
    except SystemExit as done:
        if done.code in (0, None):
            raise
        raise UsageError(_unboxed(boxed.getvalue()), "", f"{line.prog} --help, or: {line.example}") from None
    from_flags = {name: _value(_get(found, name), leaves[name]) for name in given if name in leaves}
    words = {one.name: _words(found, one) for one in line.positionals}
    for one in line.positionals:
        if one.required and not words[one.name]:
            raise UsageError(f"{line.prog} needs {one.name}: {one.help}", "", line.example)
    file = Path(found.config) if found.config else None
    from_file = _read_config(file, line.settings) if file else {}
    switches = frozenset(name for name in line.switches if getattr(found, name))
    return Parsed(resolve(line, from_file, from_flags, file), words, switches, frozenset(from_flags) | _dotted(from_file).keys())


def resolve(line: CommandLine[SettingsT], from_file: Values, from_flags: Values, file: Path | None = None) -> SettingsT:
    """Build the settings once, from everything at once: flags over file over defaults. Raises UsageError that says who was wrong."""
    flat = {**_group_defaults(line.settings), **line.defaults, **_dotted(from_file), **from_flags}
    try:
        return line.settings(**_nested(flat))
    except ValidationError as error:
        first = error.errors()[0]
        why = first["msg"].removeprefix("Value error, ")
        leaves = _leaves(line.settings)
        key = ".".join(str(part) for part in first["loc"] if not isinstance(part, int))
        while key not in leaves and "." in key:  # a union's branch is named behind the field
            key = key.rpartition(".")[0]
        if key not in leaves:
            raise UsageError("These settings do not go together", why, f"{line.prog} --help") from None
        value = first["input"]
        what = f"Bad value for --{key}: {value!r}" if key in from_flags or file is None else f"Bad value for '{key}' in {file}: {value!r}"
        near = suggestion(str(value), _choices(leaves[key].annotation))
        raise UsageError(what, why, near or f"{line.prog} --help") from None


def _canonical(line: CommandLine[Any], argv: Sequence[str], leaves: Mapping[str, FieldInfo]) -> tuple[list[str], set[str]]:
    """The arguments with every flag spelled as tyro knows it, and the names of the flags that were given."""
    spellings = _spellings(leaves) | {name: name for name in (*line.switches, "config", "debug", "help")}
    out: list[str] = []
    given: set[str] = set()
    words = iter(argv)
    for word in words:
        if word == "--":
            out += ["--", *words]
            break
        if not word.startswith("--"):
            out.append(word)
            continue
        flag, equals, value = word[2:].partition("=")
        name = flag.replace("-", "_")
        positive = name.removeprefix("no_")
        if name not in spellings and positive in spellings and _is_bool(leaves.get(spellings[positive])):
            target, off = spellings[positive], True
        elif name in spellings:
            target, off = spellings[name], False
        else:
            known = [spelling.replace("_", "-") for spelling in spellings]
            raise UsageError(f"Unknown flag --{flag}", "", suggestion(flag.replace("_", "-"), known, "--") or f"{line.prog} --help")
        if equals and _is_bool(leaves.get(target)):
            off = {"true": off, "false": not off}.get(value.lower(), off)  # --curriculum=false
            equals = ""
        given.add(target)
        *above, last = target.replace("_", "-").split(".")
        out.append(f"--{'.'.join([*above, 'no-' + last if off else last])}{'=' if equals else ''}{value if equals else ''}")
    return out, given


def _spellings(leaves: Mapping[str, FieldInfo]) -> dict[str, str]:
    """Every way to write a flag (with underscores) → its dotted name."""
    found = {name: name for name in leaves}
    last_names = [name.rpartition(".")[2] for name in leaves]
    for name in leaves:
        last = name.rpartition(".")[2]
        if last not in found and last_names.count(last) == 1:
            found[last] = name
    return {**{short: name for short, name in ALIASES.items() if name in leaves}, **found}


def _description(line: CommandLine[Any]) -> str:
    details = f"\n\n{textwrap.fill(line.details, 80, break_on_hyphens=False)}" if line.details else ""
    return f"{line.summary}{details}\n\nExample:\n  {line.example}"


def _unboxed(text: str) -> str:
    """tyro's framed complaint as plain lines: its first paragraph, without the frame."""
    lines = [line.strip().removeprefix("│").removesuffix("│").strip() for line in text.splitlines() if "╭" not in line and "╰" not in line]
    first = [line for line in lines[: next((i for i, line in enumerate(lines) if line.startswith("──")), None)] if line]
    message = " ".join(first) or "These arguments cannot be read"
    if missing := re.search(r"Missing value for argument '(--\S+)'", message):
        return f"{missing[1]} needs a value"
    return message.replace("Unrecognized options: ", "Unexpected: ")


# -- settings as a class that tyro can show ------------------------------------------------------------------------------------------


def _leaves(cls: type[Settings], prefix: str = "") -> dict[str, FieldInfo]:
    """Dotted name → field, for every setting that is no group of settings."""
    found: dict[str, FieldInfo] = {}
    for name, info in cls.model_fields.items():
        if inner := _settings_class(info):
            found |= _leaves(inner, f"{prefix}{name}.")
        else:
            found[prefix + name] = info
    return found


def _settings_class(info: FieldInfo) -> type[Settings] | None:
    return info.annotation if isinstance(info.annotation, type) and issubclass(info.annotation, Settings) else None


def _twin(line: CommandLine[Any]) -> type:
    """A dataclass with the same names in which every value is still text. tyro parses and shows it; nothing is checked yet."""
    twin = _twin_class(line.settings, {**_group_defaults(line.settings), **line.defaults}, "")
    members: list[Any] = []
    for one in line.positionals:
        arg = tyro.conf.arg(metavar=one.name, name=one.name.lower(), help=one.help, help_behavior_hint="(required)" if one.required else "")
        kind = list[str] if one.many else str
        default = field(default_factory=list) if one.many else field(default="")
        members.append((f"word_{one.name.lower()}", tyro.conf.Positional[Annotated[kind, arg]], default))
    members += [(f.name, f.type, field(default=f.default, default_factory=f.default_factory)) for f in dataclasses.fields(twin)]
    switches = {**line.switches, "debug": "Show the traceback of an error."}
    for name, text in switches.items():
        arg = tyro.conf.arg(help=text, help_behavior_hint="")
        members.append((name, tyro.conf.FlagCreatePairsOff[Annotated[bool, arg]], field(default=False)))
    text = "A TOML file of these settings; a flag wins over it."
    arg = tyro.conf.arg(metavar="FILE", help=text, help_behavior_hint="")
    members.append(("config", Annotated[str, arg], field(default="")))
    return dataclasses.make_dataclass("Arguments", members)


def _group_defaults(cls: type[Settings]) -> dict[str, Any]:
    """What a command gives its groups in place of their own defaults (training's shorter sandbox limit): one flag of a group must not undo it."""
    found: dict[str, Any] = {}
    for name, info in cls.model_fields.items():
        if _settings_class(info) and isinstance(group := info.get_default(call_default_factory=True), Settings):
            found |= _dotted(group.model_dump(exclude_defaults=True), f"{name}.")
    return found


def _twin_class(cls: type[Settings], defaults: Mapping[str, Any], prefix: str) -> type:
    members: list[Any] = []
    for name, info in cls.model_fields.items():
        if inner := _settings_class(info):
            group = _twin_class(inner, defaults, f"{prefix}{name}.")
            short = f" `--{name} KIND` is short for `--{name}.kind KIND`." if ALIASES.get(name) == f"{name}.kind" else ""
            group.__doc__ = f"{(inner.__doc__ or '').strip()}{short}"
            members.append((name, group, field(default_factory=group)))
            continue
        default = defaults.get(prefix + name, info.get_default(call_default_factory=True))
        text = info.description or ""
        if _is_bool(info):
            members.append((name, Annotated[bool, tyro.conf.arg(help=text)], field(default=bool(default))))
            continue
        shown = ",".join(map(str, default)) if isinstance(default, (list, tuple)) else default
        hint = "" if default is None else f"(default: {shown})"
        arg = tyro.conf.arg(metavar=_metavar(info.annotation), help=text, help_behavior_hint=hint)
        members.append((name, Annotated[str, arg], field(default="" if default is None else str(shown))))
    return dataclasses.make_dataclass(cls.__name__, members)


def _is_bool(info: FieldInfo | None) -> bool:
    return info is not None and info.annotation is bool


def _choices(annotation: Any) -> list[str]:
    """The words of a `Literal`, also inside an `X | None`."""
    if get_origin(annotation) is Literal:
        return [str(choice) for choice in get_args(annotation)]
    return [choice for part in get_args(annotation) for choice in _choices(part)]


def _metavar(annotation: Any) -> str:
    """INT, FLOAT, PATH, TEXT or {a,b}; a tuple of them is INT,INT,..."""
    if choices := _choices(annotation):
        return "{" + ",".join(choices) + "}"
    parts = [part for part in get_args(annotation) if part not in (type(None), Ellipsis)] or [annotation]
    name = {int: "INT", float: "FLOAT", Path: "PATH"}.get(parts[0], "TEXT")
    return f"{name},{name},..." if get_origin(annotation) in (tuple, list) else name


def _value(raw: Any, info: FieldInfo) -> Any:
    """A flag's text as pydantic should see it: `none` unsets an optional setting, commas part a list."""
    if isinstance(raw, bool):
        return raw
    if raw.lower() == "none" and type(None) in get_args(info.annotation):
        return None
    return [part for part in re.split(r"[,\s]+", raw) if part] if get_origin(info.annotation) in (tuple, list) else raw


def _words(found: Any, one: Positional) -> list[str]:
    value = getattr(found, f"word_{one.name.lower()}")
    return list(value) if one.many else [value] if value else []


def _get(found: Any, dotted: str) -> Any:
    for part in dotted.split("."):
        found = getattr(found, part)
    return found


# -- the config file -----------------------------------------------------------------------------------------------------------------


def _read_config(path: Path, cls: type[Settings]) -> Values:
    """The file's values; raises UsageError for a key that is no setting, with the nearest one."""
    try:
        values = load_toml(path)
    except OSError as error:
        raise UsageError(f"Cannot read {path}", error.strerror or str(error), "check the path, or leave --config out") from None
    _refuse_unknown(values, cls, path, "")
    return values


def _refuse_unknown(values: Values, cls: type[Settings], path: Path, prefix: str) -> None:
    for key, value in values.items():
        name = prefix + key
        if key not in cls.model_fields:
            near = suggestion(key, list(cls.model_fields))
            hint = near.replace("did you mean ", f"did you mean '{prefix}").replace("?", "'?") or "see --help for the keys"
            raise UsageError(f"Unknown key '{name}' in {path}", "", hint)
        inner = _settings_class(cls.model_fields[key])
        if inner is not None:
            if not isinstance(value, dict):
                raise UsageError(f"Bad value for '{name}' in {path}", "it is a group of settings", f"a table of them, under a line [{name}]")
            _refuse_unknown(value, inner, path, f"{name}.")


def _dotted(values: Mapping[str, Any], prefix: str = "") -> Values:
    out: Values = {}
    for key, value in values.items():
        out |= _dotted(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return out


def _nested(flat: Mapping[str, Any]) -> Values:
    out: Values = {}
    for dotted, value in flat.items():
        *above, last = dotted.split(".")
        place = out
        for part in above:
            place = place.setdefault(part, {})
        place[last] = value
    return out
