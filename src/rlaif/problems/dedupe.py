"""Near-duplicates within a set, and overlap between a training set and an evaluation set (decontamination).

Two views of a problem are compared by Jaccard similarity: its prompt, as content words and pairs of them, and its reference, as
4-grams of a syntax tree from which names, docstrings and annotations are gone. A task retold in other words keeps its solution; a task
solved otherwise keeps its words. Candidates come from an inverted index over shingles, so the similarities are exact and the work
grows with what is shared, not with the number of pairs (MinHash would only approximate what is affordable here).
"""

from __future__ import annotations

import ast
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from rlaif.problems import pysource
from rlaif.types import Problem

PROMPT_ALONE = 0.75
PROMPT_WITH_REFERENCE, REFERENCE_WITH_PROMPT = 0.4, 0.75
SMALLEST_REFERENCE = 18
"""Nodes below which an equal reference says nothing: two unrelated one-liners are often the same call."""
OVERLAP_FILE = Path(__file__).parent / "data" / "overlaps.json"
NGRAM = 13
"""Words in a row whose reappearance counts as contamination (GPT-3's rule, arXiv 2005.14165, appendix C)."""
COMMONPLACE = 400
"""A shingle that more problems than this share proposes no pairs (`return the number of`): it still counts in the similarity."""

_STOP = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be but by each every for from function given gives has have if in into is it its no not of on or python return "
        "returns so than that the their them there these they this to was when where which with write you your",
    )
)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two problems that are alike, how much, and by which rule: `prompt`, `reference`, `both`, `ngram` or `behaviour`."""

    first: str
    second: str
    prompt: float
    reference: float
    rule: str


@dataclass(frozen=True)
class OverlapReport:
    """How much of an evaluation set a training set gives away."""

    training: int
    evaluation: int
    pairs: tuple[Pair, ...]
    """`first` is the training problem, `second` the evaluation problem."""

    @property
    def contaminated(self) -> tuple[str, ...]:
        """Evaluation problems that have a near-duplicate in training, by id."""
        return tuple(sorted({pair.second for pair in self.pairs}))

    @property
    def share(self) -> float:
        return len(self.contaminated) / self.evaluation if self.evaluation else 0.0

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, for `config.json`'s neighbour and the report."""
        return {
            "training": self.training,
            "evaluation": self.evaluation,
            "contaminated": list(self.contaminated),
            "share": self.share,
            "pairs": [asdict(pair) for pair in self.pairs],
        }

    def lines(self) -> list[str]:
        """For people."""
        if not self.pairs:
            return [f"Decontamination: none of {self.evaluation} evaluation problems is close to one of {self.training} training problems."]
        close = f"{len(self.contaminated)} of {self.evaluation} evaluation problems ({self.share:.1%})"
        head = f"Decontamination: {close} are close to a training problem:"
        shown = [f"  {pair.second} ~ {pair.first} ({_why(pair)})" for pair in self.pairs[:10]]
        return [head, *shown, *([f"  and {len(self.pairs) - 10} pairs more"] if len(self.pairs) > 10 else [])]


def near_duplicates(problems: Sequence[Problem]) -> list[Pair]:
    """Pairs of one set that are too alike to stand on two sides of a split, most alike first."""
    views = [_View.of(problem) for problem in problems]
    return _ordered(_judge(views[i], views[j]) for i, j in _candidates(views, views) if i < j)


def overlap_report(train: Sequence[Problem], evaluation: Sequence[Problem]) -> OverlapReport:
    """Which evaluation problems are near-duplicates of training problems, share 13 words in a row with one, or ask for the same thing.

    The last is known for the built-in set against HumanEval and MBPP: `data/overlaps.json` lists where a built-in reference passes
    all tests of a public problem that are plain comparisons. Basic tasks are basic everywhere (is it prime, the largest of a list).
    """
    left, right = [_View.of(problem) for problem in train], [_View.of(problem) for problem in evaluation]
    pairs = {(pair.first, pair.second): pair for pair in _ordered(_judge(left[i], right[j]) for i, j in _candidates(left, right))}
    for i, j in _shared_ngrams(left, right):
        key = (left[i].id, right[j].id)
        if key not in pairs:
            pairs[key] = Pair(*key, jaccard(left[i].prompt, right[j].prompt), jaccard(left[i].reference, right[j].reference), "ngram")
    for i, j in _same_behaviour(train, evaluation):
        key = (left[i].id, right[j].id)
        if key not in pairs:
            pairs[key] = Pair(*key, jaccard(left[i].prompt, right[j].prompt), jaccard(left[i].reference, right[j].reference), "behaviour")
    return OverlapReport(len(train), len(evaluation), tuple(pairs.values()))


def without_overlap(train: Sequence[Problem], report: OverlapReport) -> list[Problem]:
    """The training problems that give nothing of the evaluation set away."""
    telling = {pair.first for pair in report.pairs}
    return [problem for problem in train if problem.id not in telling]


def _same_behaviour(train: Sequence[Problem], evaluation: Sequence[Problem]) -> Iterator[tuple[int, int]]:
    place = {problem.id: i for i, problem in enumerate(train) if problem.source == "builtin"}
    if not place or not OVERLAP_FILE.exists():
        return
    known: dict[str, list[str]] = json.loads(OVERLAP_FILE.read_text(encoding="utf-8"))
    for j, problem in enumerate(evaluation):
        yield from ((place[name], j) for name in known.get(problem.id, ()) if name in place)


def together(pairs: Iterable[Pair]) -> list[list[str]]:
    """The pairs as groups: everything that is connected, however indirectly."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            name = parent[name]
        return name

    for pair in pairs:
        parent[root(pair.first)] = root(pair.second)
    groups: dict[str, list[str]] = defaultdict(list)
    for name in parent:
        groups[root(name)].append(name)
    return [sorted(group) for group in groups.values()]


def jaccard(first: frozenset, second: frozenset) -> float:
    """Shared over all; 0 if either is empty."""
    return len(first & second) / len(first | second) if first and second else 0.0


def prompt_shingles(text: str) -> frozenset[str]:
    """Content words and pairs of neighbours. Numbers count; a plural `s` does not."""
    words = [word.removesuffix("s") for word in _words(text) if word not in _STOP]
    return frozenset([*words, *(f"{a} {b}" for a, b in pairwise(words))])


def normal_form(source: str) -> str:
    """The program with every name of its own replaced by its number of appearance, and docstrings, annotations and imports gone."""
    tree = pysource.parse_or_none(source)
    if tree is None:
        return ""
    return ast.dump(_Anonymous(set(pysource.bound_names(tree))).visit(tree))


class _Anonymous(ast.NodeTransformer):
    def __init__(self, own: set[str]) -> None:
        self.own, self.numbers = own, {}

    def _name(self, name: str) -> str:
        return f"v{self.numbers.setdefault(name, len(self.numbers))}" if name in self.own else name

    def visit_Import(self, node: ast.Import) -> None:
        return None

    visit_ImportFrom = visit_Import  # type: ignore[assignment]

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        is_text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if is_text else self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        return self.visit(ast.Assign([node.target], node.value)) if node.value is not None else None

    def generic_visit(self, node: ast.AST) -> ast.AST:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                node.name, node.returns = self._name(node.name), None
            case ast.ClassDef():
                node.name = self._name(node.name)
            case ast.arg():
                node.arg, node.annotation = self._name(node.arg), None
            case ast.Name():
                node.id = self._name(node.id)
            case ast.ExceptHandler(name=str(name)):
                node.name = self._name(name)
        return super().generic_visit(node)


@dataclass(frozen=True, slots=True)
class _View:
    id: str
    words: tuple[str, ...]
    prompt: frozenset[str]
    form: str
    size: int
    reference: frozenset[str]

    @classmethod
    def of(cls, problem: Problem) -> _View:
        form = normal_form(problem.reference or "")
        tokens = re.findall(r"\w+|'[^']*'", form)
        grams = frozenset(" ".join(tokens[i : i + 4]) for i in range(max(0, len(tokens) - 3)))
        return cls(problem.id, tuple(_words(problem.prompt)), prompt_shingles(problem.prompt), form, form.count("("), grams)


def _words(text: str) -> list[str]:
    prose = re.sub(r"(?m)^\s*>>>.*(\n(?!\s*>>>).*)?", "", text)  # doctest examples are tests, not words: two tasks may share "True"
    return re.findall(r"[a-z]+|\d+", prose.lower())


def _judge(first: _View, second: _View) -> Pair | None:
    prompt, reference = jaccard(first.prompt, second.prompt), jaccard(first.reference, second.reference)
    if prompt >= PROMPT_ALONE:
        rule = "prompt"
    elif first.form == second.form and first.size >= SMALLEST_REFERENCE:
        rule = "reference"
    elif prompt >= PROMPT_WITH_REFERENCE and reference >= REFERENCE_WITH_PROMPT:
        rule = "both"
    else:
        return None
    return Pair(first.id, second.id, round(prompt, 3), round(reference, 3), rule)


def _candidates(left: Sequence[_View], right: Sequence[_View]) -> Iterator[tuple[int, int]]:
    """Index pairs that share a pair of content words or have equal references."""
    by_words: dict[str, list[int]] = defaultdict(list)
    by_form: dict[str, list[int]] = defaultdict(list)
    for j, view in enumerate(right):
        for shingle in view.prompt:
            by_words[shingle].append(j)
        if view.size >= SMALLEST_REFERENCE:
            by_form[view.form].append(j)
    for i, view in enumerate(left):
        shared = Counter(j for shingle in view.prompt if len(by_words.get(shingle, ())) <= COMMONPLACE for j in by_words.get(shingle, ()))
        # Jaccard of t needs at least t of the smaller set shared; half of that leaves room for commonplace shingles.
        floor = PROMPT_WITH_REFERENCE / 2
        close = {j for j, count in shared.items() if count >= floor * min(len(view.prompt), len(right[j].prompt))}
        for j in sorted(close | set(by_form.get(view.form, ()) if view.size >= SMALLEST_REFERENCE else ())):
            yield i, j


def _shared_ngrams(left: Sequence[_View], right: Sequence[_View]) -> Iterator[tuple[int, int]]:
    index: dict[tuple[str, ...], set[int]] = defaultdict(set)
    for j, view in enumerate(right):
        for start in range(len(view.words) - NGRAM + 1):
            index[view.words[start : start + NGRAM]].add(j)
    for i, view in enumerate(left):
        hits = {j for start in range(len(view.words) - NGRAM + 1) for j in index.get(view.words[start : start + NGRAM], ())}
        yield from ((i, j) for j in sorted(hits))


def _ordered(pairs: Iterable[Pair | None]) -> list[Pair]:
    return sorted((pair for pair in pairs if pair is not None), key=lambda pair: (-pair.prompt - pair.reference, pair.first, pair.second))


def _why(pair: Pair) -> str:
    reasons = {"prompt": "the same words", "reference": "the same solution", "both": "alike in words and solution"}
    reasons["behaviour"] = "its solution passes the other's tests"
    return f"{reasons.get(pair.rule, f'{NGRAM} words in a row')}: prompt {pair.prompt:.2f}, solution {pair.reference:.2f}"
