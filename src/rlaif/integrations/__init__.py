"""The reward in other people's trainers: `trl`, `verl`, `openrlhf`, `verifiers`, one module each, on one `Scorer`.

Nothing here imports torch, and only `verifiers` imports the library that it serves. A sample that could not be scored for reasons of the
machine is never worth 0.0: TRL gets None, verl and verifiers an exception, OpenRLHF an HTTP 503, which its client tries again.
"""

from rlaif.integrations.scorer import RewardUnavailable, Scorer

__all__ = ["RewardUnavailable", "Scorer"]
