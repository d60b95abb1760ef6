"""AI feedback: judges behind one protocol, and what stands between them and the code they read.

`JudgeItem`, `Judge`, constitutions and the sanitiser import at once; a judge that needs torch loads it when it is made.
"""

from __future__ import annotations

from rlaif.judge.constitution import Constitution, Principle, load_constitution
from rlaif.judge.factory import make_judge
from rlaif.judge.protocol import Judge, JudgeItem
from rlaif.judge.sanitise import Refusal, Sanitised, precheck, sanitise

__all__ = [
    "Constitution",
    "Judge",
    "JudgeItem",
    "Principle",
    "Refusal",
    "Sanitised",
    "load_constitution",
    "make_judge",
    "precheck",
    "sanitise",
]
