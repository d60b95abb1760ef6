"""`rlaif report RUN` rebuilds a run's page; `rlaif report A B` compares runs. Never imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rlaif.cli.flags import CommandLine, Positional
from rlaif.config import Settings
from rlaif.errors import UsageError
from rlaif.runs import latest_run


class ReportConfig(Settings):
    """Where the page goes."""

    out: Path | None = None
    """The file to write; default: report.html in the run, compare.html for two runs."""


LINE = CommandLine(
    "rlaif report",
    "One self-contained HTML file about a run, or one that compares two.",
    "rlaif report",
    ReportConfig,
    positionals=(Positional("RUN", "a run directory, or two to compare (default: the latest under runs/)", required=False, many=True),),
)


def run(argv: Sequence[str]) -> int:
    """Writes the page and prints its path."""
    parsed = LINE.parse(argv)
    folders, out = [Path(word) for word in parsed.words["RUN"]], parsed.settings.out
    if not folders:
        latest = latest_run()
        if latest is None:
            raise UsageError("There is no run to report on", "./runs holds none", "rlaif report PATH_OF_A_RUN, or train first: rlaif train")
        folders = [latest.path]
    if len(folders) > 2:
        raise UsageError("A report is about one run or two", f"{len(folders)} were given", "rlaif report A B")
    from rlaif.report import build_report, compare_report

    path = build_report(folders[0], out) if len(folders) == 1 else compare_report(folders[0], folders[1], out or Path("compare.html"))
    print(path)
    return 0
