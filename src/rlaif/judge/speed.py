"""Judgements a second, with the shared prefix on and off:  python -m rlaif.judge.speed labelled.jsonl [--model M | --adapter A] [--threads 2]"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch

from rlaif.config import JudgeConfig
from rlaif.judge.factory import make_judge
from rlaif.judge.labelled import read_labelled
from rlaif.judge.local import LocalJudge
from rlaif.judge.protocol import JudgeItem


def measure(judge: LocalJudge, items: list[JudgeItem], *, share_prefix: bool) -> dict[str, float | bool | int]:
    """Score `items` once, cold but for one warm-up item; wall seconds and judgements a second."""
    judge.share_prefix = share_prefix
    judge.score(items[:1])
    judge.forget()
    start = time.perf_counter()
    reports = judge.score(items)
    seconds = time.perf_counter() - start
    answered = sum(report.score is not None for report in reports)
    return {
        "share_prefix": share_prefix,
        "items": len(items),
        "answered": answered,
        "seconds": round(seconds, 2),
        "per_second": round(answered / seconds, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--adapter", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--limit", type=int, default=200)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    items = [JudgeItem(item.problem, item.code) for item in read_labelled(options.file)][: options.limit]
    kind = "local" if options.model or options.adapter else "embedded"
    judge = make_judge(JudgeConfig(kind=kind, model=options.model, adapter=options.adapter))
    assert isinstance(judge, LocalJudge)
    for share_prefix in (True, False):
        print(json.dumps({"judge": judge.name, **measure(judge, items, share_prefix=share_prefix)}))


if __name__ == "__main__":
    main()
