"""Running code that nobody has read: the machine is safe from it, and so is the reward.

`Sandbox.run(problem, code)` gives a `TestReport`; `Sandbox.run_many(jobs)` streams. The process that runs a solution never
holds an expected value, a test, a verdict channel or a secret; `describe()` says which layers of isolation were reached.
"""

from rlaif.sandbox.box import Job, Sandbox

__all__ = ["Job", "Sandbox"]
