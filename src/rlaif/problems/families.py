"""The families behind `generate`: each draws a rule and says it in words and in code."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from rlaif.types import Difficulty


@dataclass(frozen=True)
class Draft:
    """A problem without its tests. `edge_cases` are test inputs that every member gets; `make_input` draws more."""

    prompt: str
    signature: str
    body: str
    difficulty: Difficulty
    edge_cases: tuple[str, ...]
    make_input: Callable[[random.Random], str]
    entry_point: str = "solve"
    head: str = ""

    @property
    def reference(self) -> str:
        return f"{self.head}{self.signature}\n{self.body}\n"


def _ints(rng: random.Random, low: int = -20, high: int = 20, longest: int = 9) -> list[int]:
    return [rng.randint(low, high) for _ in range(rng.randint(1, longest))]


def _word(rng: random.Random, letters: str = "abcdeABC ", longest: int = 12) -> str:
    return "".join(rng.choice(letters) for _ in range(rng.randint(1, longest)))


def pipeline(rng: random.Random) -> Draft:
    """Keep some numbers, change them, boil them down."""
    d, t = rng.randint(2, 6), rng.randint(-5, 8)
    keep, test = rng.choice(
        [
            (f"divisible by {d}", f"x % {d} == 0"),
            (f"not divisible by {d}", f"x % {d} != 0"),
            (f"greater than {t}", f"x > {t}"),
            (f"at most {t}", f"x <= {t}"),
            (f"whose absolute value is less than {abs(t) + 3}", f"abs(x) < {abs(t) + 3}"),
            (f"at positions 0, {d}, {2 * d} and so on", f"i % {d} == 0"),
            ("greater than the number right before them (the first number has none and is left out)", "i > 0 and x > xs[i - 1]"),
        ]
    )
    a, b = rng.randint(2, 5), rng.randint(1, 9)
    change, expression = rng.choice(
        [
            (f"multiply each by {a} and add {b}", f"{a} * x + {b}"),
            ("square each", "x * x"),
            (f"subtract each from {a * b}", f"{a * b} - x"),
            (f"replace each by its remainder when divided by {a + 1} (as Python's % gives it)", f"x % {a + 1}"),
            (f"multiply each by its position in the original list, counted from {b % 2}", f"x * {'(i + 1)' if b % 2 else 'i'}"),
        ]
    )
    reduce, final = rng.choice(
        [
            ("the sum of the results", "return sum(out)"),
            ("the results as a list in reverse order", "return out[::-1]"),
            ("the largest result, or None if nothing is left", "return max(out, default=None)"),
            ("how many different results there are", "return len(set(out))"),
            ("the list of running totals of the results", "return [sum(out[: k + 1]) for k in range(len(out))]"),
            ("the sum of the results at even positions minus the sum of those at odd positions", "return sum(out[::2]) - sum(out[1::2])"),
        ]
    )
    return Draft(
        f"Given a list of integers xs, keep the numbers {keep}, then {change}. Return {reduce}.",
        "def solve(xs: list):",
        f"    out = [{expression} for i, x in enumerate(xs) if {test}]\n    {final}",
        "easy",
        ("solve([])", "solve([0])", "solve([1, 1, 1])", "solve([-4, 12, -4, 12, 30])"),
        lambda r: f"solve({_ints(r)!r})",
    )


def text(rng: random.Random) -> Draft:
    """Split a text, treat the pieces by a rule, join them."""
    n = rng.randint(2, 5)
    which, test = rng.choice(
        [
            (f"longer than {n} characters", f"len(word) > {n}"),
            ("that begin with a vowel (a, e, i, o, u in either case)", "word[0] in 'aeiouAEIOU'"),
            (f"at every {n}{'nd' if n == 2 else 'rd' if n == 3 else 'th'} position (counting from 1)", f"(i + 1) % {n} == 0"),
            ("that read the same backwards", "word == word[::-1]"),
            ("that contain a letter more than once (upper and lower case differ)", "len(set(word)) < len(word)"),
        ]
    )
    treat, expression = rng.choice(
        [
            ("reversed", "word[::-1]"),
            ("in upper case", "word.upper()"),
            ("replaced by their length", "str(len(word))"),
            (f"cut to their first {n - 1} characters", f"word[:{n - 1}]"),
            ("with their first character moved to the end", "word[1:] + word[0]"),
            ("written twice in a row without a space", "word + word"),
        ]
    )
    rest, other = rng.choice([("stay as they are", "word"), ("are left out", None), ("are written in lower case", "word.lower()")])
    joiner, said = rng.choice([(" ", "single spaces"), ("-", "hyphens"), ("", "nothing between them")])
    step = f"out.append({expression})" if other is None else f"out.append({expression} if {test} else {other})"
    loop = f"        if {test}:\n            {step}" if other is None else f"        {step}"
    words = ["level", "Apple", "to", "noon", "x", "banana", "idea", "Tree", "umbrella", "sky", "Otto", "queue", "rhythm"]
    return Draft(
        f"A sentence is a string of words with spaces between them. The words {which} are {treat}; all other words {rest}. "
        f"Return the words in their order, joined with {said}.",
        "def solve(sentence: str) -> str:",
        f"    out = []\n    for i, word in enumerate(sentence.split()):\n{loop}\n    return {joiner!r}.join(out)",
        "easy",
        ("solve('')", "solve('a')", "solve('  two   spaces ')"),
        lambda r: f"solve({' '.join(r.choices(words, k=r.randint(1, 7)))!r})",
    )


def recurrence(rng: random.Random) -> Draft:
    """A sequence given by a rule over its earlier terms."""
    first, second = rng.randint(0, 3), rng.randint(1, 4)
    a, b = rng.randint(1, 3), rng.choice([-1, 1, 2])
    extra, said = rng.choice([("", ""), (" + i", " plus n"), (" + i % 3", " plus the remainder of n divided by 3")])
    twist, said_twist = rng.choice([("", ""), (" % 97", ", all taken modulo 97"), (" % 1000", ", all taken modulo 1000")])
    times = "" if a == 1 else f"{a} times "
    plus = {-1: "minus ", 1: "plus ", 2: "plus twice "}[b]
    back, said_back = rng.choice([(2, "the term two before it"), (3, "the term three before it")])
    start = [first, second] + ([first + second] if back == 3 else [])
    return Draft(
        f"A sequence begins with terms number 0 to {len(start) - 1}: {', '.join(map(str, start))}. "
        f"Each later term, number n, is {times}the term before it "
        f"{plus}{said_back}{said}{said_twist}. Return term number n (n is 0 or more).",
        "def solve(n: int) -> int:",
        f"    terms = {start!r}\n    for i in range({len(start)}, n + 1):\n"
        f"        terms.append(({a} * terms[-1] + {b} * terms[-{back}]{extra}){twist})\n    return terms[n]",
        "medium",
        ("solve(0)", "solve(1)", "solve(2)", "solve(3)", "solve(60)", *(("solve(2000)",) if twist else ())),
        lambda r: f"solve({r.randint(4, 40)})",
    )


def grid_paths(rng: random.Random) -> Draft:
    """Count or weigh the ways through a grid with its own set of moves."""
    moves = rng.sample([(0, 1), (1, 0), (1, 1), (1, 2), (2, 1), (0, 2), (2, 0)], k=rng.randint(2, 3))
    if not any(dr for dr, _ in moves) or not any(dc for _, dc in moves):
        moves = [(0, 1), (1, 0), *moves[:1]] if moves[0] not in ((0, 1), (1, 0)) else [(0, 1), (1, 0)]
    said = ", ".join(f"({dr}, {dc})" for dr, dc in moves)
    goal = rng.choice(["count", "best", "least"])
    ask, init, step, end = {
        "count": (
            "how many different sequences of moves lead from the top left cell to the bottom right cell; cells that hold 0 may not be entered "
            "(if the first or the last one is 0, there are none)",
            "1 if grid[0][0] else 0",
            "sum(before) if grid[r][c] else 0",
            "table[-1][-1] or 0",
        ),
        "best": (
            "the largest sum of the visited cells' numbers (first and last included) on a way from the top left to the bottom right cell, "
            "or None if there is no way",
            "grid[0][0]",
            "max(before) + grid[r][c] if before else None",
            "table[-1][-1]",
        ),
        "least": (
            "the smallest sum of the visited cells' numbers (first and last included) on a way from the top left to the bottom right cell, "
            "or None if there is no way",
            "grid[0][0]",
            "min(before) + grid[r][c] if before else None",
            "table[-1][-1]",
        ),
    }[goal]
    low, high = (0, 1) if goal == "count" else (-3, 9)

    def grid(r: random.Random) -> str:
        rows, columns = r.randint(1, 5), r.randint(1, 5)
        weights = [1, 4] if goal == "count" else None
        return f"solve({[r.choices(range(low, high + 1), weights, k=columns) for _ in range(rows)]!r})"

    return Draft(
        f"You walk over a grid of numbers (a list of equally long rows). "
        f"One move adds one of these (rows, columns) to your position: {said}. Return {ask}.",
        "def solve(grid: list):",
        f"    moves = {moves!r}\n    table = [[None] * len(row) for row in grid]\n"
        f"    for r, row in enumerate(grid):\n        for c in range(len(row)):\n"
        f"            if r == c == 0:\n                table[0][0] = {init}\n                continue\n"
        "            before = [table[r - a][c - b] for a, b in moves if r >= a and c >= b and table[r - a][c - b] is not None]\n"
        f"            table[r][c] = {step}\n    return {end}",
        "hard",
        ("solve([[1]])", "solve([[1, 1], [1, 1]])", "solve([[1, 1, 1], [1, 1, 1], [1, 1, 1]])", "solve([[1, 1, 1, 1], [1, 0, 1, 1], [1, 1, 1, 1]])"),
        grid,
    )


def machine(rng: random.Random) -> Draft:
    """A little machine with a register and a stack, driven by letters."""
    pool = [
        ("adds {k} to the register", "value += {k}"),
        ("doubles the register", "value *= 2"),
        ("negates the register", "value = -value"),
        ("pushes the register onto the stack", "stack.append(value)"),
        ("pops the stack and adds what was popped to the register (nothing happens if the stack is empty)", "value += stack.pop() if stack else 0"),
        (
            "swaps the register with the top of the stack (nothing happens if it is empty)",
            "if stack:\n                value, stack[-1] = stack[-1], value",
        ),
        ("sets the register to the number of items on the stack", "value = len(stack)"),
        ("takes the register modulo {m}", "value %= {m}"),
    ]
    k, m = rng.randint(1, 7), rng.randint(3, 11)
    chosen = rng.sample(pool, k=rng.randint(3, 5))
    letters = rng.sample("ABCDEFGH", k=len(chosen))
    said = "; ".join(f"{letter} {words.format(k=k, m=m)}" for letter, (words, _) in zip(letters, chosen, strict=True))
    start = rng.randint(0, 5)
    branches = "\n".join(
        f"        {'if' if i == 0 else 'elif'} letter == {letter!r}:\n            {code.format(k=k, m=m)}"
        for i, (letter, (_, code)) in enumerate(zip(letters, chosen, strict=True))
    )
    result, ask = rng.choice(
        [("value", "the register at the end"), ("[value, *stack]", "a list of the register and the items of the stack, bottom first")]
    )
    alphabet = "".join(letters)
    return Draft(
        f"A machine has a register that starts at {start} and an empty stack. Each letter of a program does one thing: {said}. "
        f"Any other character does nothing. Return {ask}.",
        "def solve(program: str):",
        f"    value, stack = {start}, []\n    for letter in program:\n{branches}\n    return {result}",
        "medium",
        ("solve('')", f"solve({alphabet!r})", f"solve({alphabet[::-1]!r})", f"solve({alphabet.lower() + alphabet[0]!r})", f"solve({alphabet * 2!r})"),
        lambda r: f"solve({''.join(r.choices(alphabet + '?', k=r.randint(2, 10)))!r})",
    )


def records(rng: random.Random) -> Draft:
    """Group rows by one field and sum up another."""
    group, amount = rng.choice([("city", "sales"), ("team", "points"), ("shelf", "weight"), ("day", "visitors")])
    limit = rng.randint(2, 6)
    condition, said = rng.choice(
        [
            ("", ""),
            (f" if row['{amount}'] >= {limit}", f" Rows whose {amount} is below {limit} are ignored."),
            (f" if row['{group}']", f" Rows whose {group} is an empty string are ignored."),
        ]
    )
    how, expression = rng.choice(
        [
            (f"the sum of its {amount}", "sum(values)"),
            (f"its largest {amount}", "max(values)"),
            (f"the difference between its largest and smallest {amount}", "max(values) - min(values)"),
            ("how many rows it has", "len(values)"),
            (f"its {amount} as a sorted list", "sorted(values)"),
        ]
    )
    order, result = rng.choice(
        [
            (f"a dictionary from {group} to {{}}", "{name: EXPR for name, values in groups.items()}"),
            (f"a list of ({group}, value) pairs sorted by {group}, where value is {{}}", "[(name, EXPR) for name, values in sorted(groups.items())]"),
        ]
    )

    def rows(r: random.Random) -> str:
        return f"solve({[{group: r.choice(['', 'a', 'b', 'c']), amount: r.randint(0, 9)} for _ in range(r.randint(1, 6))]!r})"

    return Draft(
        f"Each row is a dictionary with the keys '{group}' (a string) and '{amount}' (a whole number).{said} Group the rows by {group} and return "
        f"{order.format(how)}. Leave out groups without rows.",
        "def solve(rows: list):",
        f"    groups = {{}}\n    for row in (row for row in rows{condition}):\n"
        f"        groups.setdefault(row['{group}'], []).append(row['{amount}'])\n"
        f"    return {result.replace('EXPR', expression)}",
        "medium",
        (
            "solve([])",
            f"solve([{{'{group}': 'a', '{amount}': {limit}}}])",
            f"solve([{{'{group}': 'b', '{amount}': {limit - 1}}}, {{'{group}': '', '{amount}': 9}}])",
        ),
        rows,
    )
