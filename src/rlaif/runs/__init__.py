"""The run directory, the live console, the glossary of metrics, and adapters to trackers."""

from rlaif.runs.console import Console, change_in_words
from rlaif.runs.directory import RunDir, is_run, latest_run
from rlaif.runs.rows import rollout_from_row, rollout_to_row
from rlaif.runs.trackers import open_tracker

__all__ = ["Console", "RunDir", "change_in_words", "is_run", "latest_run", "open_tracker", "rollout_from_row", "rollout_to_row"]
