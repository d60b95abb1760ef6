"""From evidence to reward: the one formula, static quality, efficiency, and the engine that runs them in batches."""

from __future__ import annotations

from rlaif.rewards.combine import band_of, combine
from rlaif.rewards.engine import RewardEngine
from rlaif.rewards.quality import quality_reports

__all__ = ["RewardEngine", "band_of", "combine", "quality_reports"]
