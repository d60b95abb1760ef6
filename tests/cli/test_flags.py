"""Flags, config files and defaults become the same settings object."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rlaif.cli.flags import CommandLine, Positional, parse_train
from rlaif.config import EvalConfig, SandboxConfig, Settings, TrainConfig
from rlaif.errors import UsageError


def test_no_flags_gives_the_defaults():
    assert parse_train([]) == TrainConfig()


@pytest.mark.parametrize("spelling", [["--output_dir", "d"], ["--output-dir", "d"], ["--output_dir=d"], ["--output-dir=d"]])
def test_underscore_and_hyphen_are_one_flag(spelling: list[str]):
    assert parse_train(spelling).output_dir == Path("d")


@pytest.mark.parametrize("spelling", [["--judge", "api"], ["--judge=api"], ["--judge.kind", "api"]])
def test_the_judge_has_a_short_spelling(spelling: list[str]):
    assert parse_train(spelling).judge.kind == "api"


def test_a_nested_name_that_is_unique_needs_no_prefix_and_one_that_is_not_means_the_top_level():
    config = parse_train(["--base_url", "http://x/v1", "--unsafe-exec", "--model", "m", "--batch-size", "3", "--judge.batch-size", "5"])
    assert config.judge.base_url == "http://x/v1" and config.sandbox.unsafe_exec
    assert (config.model, config.judge.model) == ("m", None)
    assert (config.batch_size, config.judge.batch_size) == (3, 5)


def test_a_name_that_two_groups_share_needs_its_prefix():
    with pytest.raises(UsageError, match="Unknown flag --timeout-s"):  # the judge has one and the sandbox has one
        parse_train(["--timeout-s", "3"])


def test_switches_can_be_turned_off_and_optional_values_unset():
    config = parse_train(["--no-curriculum", "--dry_run", "--track", "none", "--clip_high", "None"])
    assert (config.curriculum, config.dry_run, config.track, config.clip_high) == (False, True, None, None)
    assert parse_train(["--curriculum=false"]).curriculum is False


def test_negative_numbers_and_lists():
    assert parse_train(["--seed", "-1"]).seed == -1
    line = CommandLine("x", "", "", EvalConfig)
    assert line.parse(["--k", "1,5,10"]).settings.k == (1, 5, 10)


def test_a_flag_wins_over_the_file_and_the_file_over_the_defaults(tmp_path: Path):
    file = tmp_path / "a.toml"
    file.write_text('episodes = 7\nbatch_size = 3\ndry_run = true\n[judge]\nkind = "none"\nconcurrency = 2\n')
    config = parse_train(["--config", str(file), "--episodes", "20", "--judge", "embedded", "--no-dry-run"], defaults={"batch_size": 5, "seed": 9})
    assert config.episodes == 20  # also where the flag says what the default says anyway
    assert config.dry_run is False
    assert (config.batch_size, config.judge.concurrency, config.seed) == (3, 2, 9)
    assert config.judge.kind == "embedded"


def test_settings_are_checked_together_once(tmp_path: Path):
    """The file alone would be refused; with the flag it is right, and the other way round."""
    file = tmp_path / "a.toml"
    file.write_text('algo = "grpo"\ngroup_size = 1\n')
    assert parse_train(["--config", str(file), "--group-size", "4"]).group_size == 4
    with pytest.raises(UsageError, match="group_size must be at least 2"):
        parse_train(["--config", str(file)])


def test_nested_defaults_as_a_dumped_config_has_them():
    assert parse_train([], defaults={"judge": {"kind": "none"}}).judge.kind == "none"


def test_an_error_names_whose_fault_it_is(tmp_path: Path):
    file = tmp_path / "a.toml"
    file.write_text("episodes = 0\n")
    with pytest.raises(UsageError, match=r"'episodes' in .*a\.toml"):
        parse_train(["--config", str(file)])
    with pytest.raises(UsageError, match="--episodes"):
        parse_train(["--config", str(file), "--episodes", "-3"])


class Small(Settings):
    """A command's settings."""

    depth: int = 1
    """How deep."""


def test_words_without_a_flag():
    line = CommandLine("x", "", "x FILE", Small, positionals=(Positional("FILE", "a file"), Positional("MORE", "others", required=False, many=True)))
    parsed = line.parse(["--depth", "2", "a", "b", "c"])
    assert (parsed.word("FILE"), parsed.words["MORE"], parsed.settings.depth, parsed.given) == ("a", ["b", "c"], 2, {"depth"})
    assert line.parse(["--", "--depth"]).word("FILE") == "--depth"
    assert line.parse(["-"]).word("FILE") == "-"
    with pytest.raises(UsageError, match="needs FILE"):
        line.parse([])


def test_help_shows_every_setting_with_its_text(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "120")
    with pytest.raises(SystemExit) as done:
        parse_train(["--help"])
    out = capsys.readouterr().out
    assert done.value.code == 0
    for name, info in TrainConfig.model_fields.items():
        if name not in ("judge", "sandbox"):
            assert f"--{name.replace('_', '-')}" in out
            assert not info.description or info.description.split()[0] in out
    assert "--judge.kind {embedded,local,api,reward_model,none}" in out and "Which judge gives AI feedback" in out


LIGHT = ("torch", "transformers", "tyro", "pydantic", "numpy", "rich", "openai")


def _imported_by(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint('\\n'.join(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    return {name.partition(".")[0] for name in done.stderr.split()}


def test_the_help_needs_nothing_but_the_standard_library():
    assert not _imported_by("from rlaif.cli.main import main\nassert main(['--help']) == 0").intersection(LIGHT)


@pytest.mark.parametrize("command", ["train", "evaluate", "chat", "reward", "judge score", "problems list", "report", "doctor"])
def test_no_help_loads_torch(command: str):
    imported = _imported_by(f"from rlaif.cli.main import main\nassert main({[*command.split(), '--help']}) == 0")
    assert "rlaif" in imported and not imported.intersection({"torch", "transformers"})


def test_one_flag_of_a_group_leaves_the_commands_other_settings_of_it(tmp_path: Path) -> None:
    assert parse_train(["--sandbox.workers", "1"]).sandbox.timeout_s == TrainConfig().sandbox.timeout_s != SandboxConfig().timeout_s
    assert parse_train(["--sandbox.timeout-s", "7"]).sandbox.timeout_s == 7
    file = tmp_path / "a.toml"
    file.write_text("[sandbox]\nworkers = 1\n")
    assert parse_train(["--config", str(file)]).sandbox.timeout_s == TrainConfig().sandbox.timeout_s
