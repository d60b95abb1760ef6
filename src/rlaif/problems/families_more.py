"""More families behind `generate`: cellular automata, leapers, intervals, digits, expressions, classes, generators, calendars."""

from __future__ import annotations

import random

from rlaif.problems.families import Draft


def automaton(rng: random.Random) -> Draft:
    """A row of cells under a rule of its own."""
    born, stay = sorted(rng.sample(range(1, 5), k=rng.randint(1, 2))), sorted(rng.sample(range(5), k=2))
    ring, said = rng.choice(
        [(True, "The row is a ring: the first and last cells are neighbours of each other"), (False, "Beyond both ends all cells are dead")]
    )
    look = "cells[(i + d) % len(cells)]" if ring else "(cells[i + d] if 0 <= i + d < len(cells) else '.')"

    def row(r: random.Random) -> str:
        return f"solve({''.join(r.choices('#.', k=r.randint(5, 12)))!r}, {r.randint(0, 5)})"

    return Draft(
        "A row of cells is a string of '#' (alive) and '.' (dead), at least 5 of them. "
        "The four neighbours of a cell are the two on its left and the two "
        f"on its right. {said}. In one step, all cells at once: "
        f"a dead cell comes alive if exactly {_or(born)} of its neighbours live, and a living cell "
        f"stays alive if exactly {_or(stay)} of them live, otherwise it dies. Return the row after the given number of steps.",
        "def solve(cells: str, steps: int) -> str:",
        "    for _ in range(steps):\n        row = ''\n        for i, cell in enumerate(cells):\n"
        f"            alive = sum({look} == '#' for d in (-2, -1, 1, 2))\n"
        f"            row += '#' if alive in ({stay!r} if cell == '#' else {born!r}) else '.'\n        cells = row\n    return cells",
        "medium",
        ("solve('.....', 3)", "solve('#####', 1)", "solve('..#..', 0)", "solve('#....', 2)", "solve('..##..', 1)"),
        row,
    )


def leaper(rng: random.Random) -> Draft:
    """Fewest jumps of a chess piece that does not exist."""
    a, b = rng.choice([(1, 2), (1, 3), (2, 3), (1, 1), (0, 2), (1, 4), (0, 3), (2, 2)])
    extra, said = rng.choice([([], ""), ([(0, 1), (0, -1), (1, 0), (-1, 0)], " It may also step one square up, down, left or right.")])
    moves = sorted({(s * x, t * y) for x, y in ((a, b), (b, a)) for s in (1, -1) for t in (1, -1)} | set(extra))
    walls = rng.random() < 0.5
    blocked = " Squares in the list blocked cannot be entered." if walls else ""

    def board(r: random.Random) -> str:
        rows, columns = r.randint(2, 6), r.randint(2, 6)
        cells = [(y, x) for y in range(rows) for x in range(columns)]
        start, goal = r.choice(cells), r.choice(cells)
        shut = [cell for cell in r.sample(cells, k=min(4, len(cells))) if cell not in (start, goal)]
        return f"solve({rows}, {columns}, {start!r}, {goal!r}{f', {shut!r}' if walls else ''})"

    tail = ", [])" if walls else ")"
    return Draft(
        f"On a board with the given numbers of rows and columns, a piece jumps {a} squares along one axis and {b} along the other, in any "
        f"direction.{said} It never leaves the board.{blocked} "
        f"Positions are (row, column), counted from 0. Return the fewest moves from start to goal, "
        "or -1 if it cannot be reached.",
        f"def solve(rows: int, columns: int, start: tuple, goal: tuple{', blocked: list' if walls else ''}) -> int:",
        f"    moves = {moves!r}\n    seen, edge, count = {{start}}, [start], 0\n    while edge:\n        if goal in edge:\n            return count\n"
        "        reached = []\n        for r, c in edge:\n            for dr, dc in moves:\n                cell = (r + dr, c + dc)\n"
        "                inside = 0 <= cell[0] < rows and 0 <= cell[1] < columns\n"
        f"                if inside and cell not in seen{' and cell not in blocked' if walls else ''}:\n"
        "                    seen.add(cell)\n                    reached.append(cell)\n        edge, count = reached, count + 1\n    return -1",
        "hard",
        (
            f"solve(1, 1, (0, 0), (0, 0){tail}",
            f"solve(8, 8, (0, 0), (7, 7){tail}",
            f"solve(5, 5, (0, 0), (1, 2){tail}",
            f"solve(1, 9, (0, 1), (0, 7){tail}",
        ),
        board,
    )


def intervals(rng: random.Random) -> Draft:
    """Questions about stretches of a number line."""
    closed = rng.random() < 0.5
    said = "both ends included" if closed else "start included, end not"
    size = "b - a + 1" if closed else "b - a"
    gap = rng.randint(0, 3)
    question, body = rng.choice(
        [
            (
                "how many whole numbers lie in at least one of them",
                f"    return len({{n for a, b in spans for n in range(a, b{' + 1' if closed else ''})}})",
            ),
            (
                "the greatest number of them that share one whole number",
                f"    points = [n for a, b in spans for n in range(a, b{' + 1' if closed else ''})]\n"
                "    return max((points.count(n) for n in set(points)), default=0)",
            ),
            (
                f"the spans that hold more than {gap + 1} whole numbers, longest first, equally long ones in their given order",
                f"    return sorted([(a, b) for a, b in spans if {size} > {gap + 1}], key=lambda s: s[0] - s[1])",
            ),
            (
                f"a sorted list of (start, end) where spans are merged if the later one starts at most {gap} after the end of the earlier one",
                f"    out = []\n    for a, b in sorted(spans):\n        if out and a <= out[-1][1] + {gap}:\n"
                "            out[-1] = (out[-1][0], max(b, out[-1][1]))\n        else:\n            out.append((a, b))\n    return out",
            ),
        ]
    )

    def spans(r: random.Random) -> str:
        rows = [(a, a + r.randint(1, 6)) for a in (r.randint(-5, 15) for _ in range(r.randint(1, 6)))]
        return f"solve({rows!r})"

    return Draft(
        f"Spans of whole numbers are (start, end) tuples with start below end, {said}. Given a list of spans in any order, return {question}.",
        "def solve(spans: list):",
        body,
        "medium",
        ("solve([])", "solve([(0, 1)])", "solve([(0, 4), (4, 8)])", "solve([(0, 9), (2, 3), (2, 3)])", "solve([(5, 7), (0, 3)])"),
        spans,
    )


def digits(rng: random.Random) -> Draft:
    """A property of a number's digits in some base."""
    base = rng.choice([2, 3, 5, 7, 8, 10, 10, 12])
    a = rng.randint(2, 4)
    question, expression = rng.choice(
        [
            (f"the sum of its digits, each raised to the power {a}", f"sum(d ** {a} for d in digits)"),
            (f"the number whose base-{base} digits are those of n in reverse order", f"sum(d * {base} ** i for i, d in enumerate(reversed(digits)))"),
            ("the length of the longest run of equal digits", "max(len(list(run)) for _, run in groupby(digits))"),
            (
                "the alternating sum of the digits: the last minus the one before it plus the one before that, and so on",
                "sum(digits[::2]) - sum(digits[1::2])",
            ),
            ("how many different digits it has", "len(set(digits))"),
            (f"how many of its digits are at least {max(1, base // 2)}", f"sum(d >= {max(1, base // 2)} for d in digits)"),
        ]
    )
    return Draft(
        f"Write the whole number n (0 or more) in base {base} (0 has the single digit 0). Return {question}.",
        "def solve(n: int) -> int:",
        f"    digits = []\n    while n:\n        digits.append(n % {base})\n        n //= {base}\n"
        f"    digits = digits or [0]\n    return {expression}",
        "medium",
        ("solve(0)", "solve(1)", f"solve({base})", f"solve({base * base - 1})", f"solve({base**3})"),
        lambda r: f"solve({r.randint(2, 99999)})",
        head="from itertools import groupby\n\n\n" if "groupby" in expression else "",
    )


def expression(rng: random.Random) -> Draft:
    """Evaluate a line in a notation with its own operators."""
    pool = [
        ("the sum of both", "a + b"),
        ("a minus b", "a - b"),
        ("the product of both", "a * b"),
        ("the larger of both", "max(a, b)"),
        ("the smaller of both", "min(a, b)"),
        ("twice a plus b", "2 * a + b"),
        ("the absolute difference of both", "abs(a - b)"),
    ]
    signs = rng.sample("@$&~^!", k=3)
    chosen = rng.sample(pool, k=3)
    said = "; ".join(f"a{sign}b is {words}" for sign, (words, _) in zip(signs, chosen, strict=True))
    table = ", ".join(f"{sign!r}: lambda a, b: {code}" for sign, (_, code) in zip(signs, chosen, strict=True))
    right = rng.random() < 0.5
    order = "from right to left (a?b?c is a?(b?c))" if right else "from left to right (a?b?c is (a?b)?c)"
    walk = (
        "    value = numbers[-1]\n    for a, sign in zip(numbers[-2::-1], signs[::-1]):\n        value = rules[sign](a, value)\n"
        if right
        else "    value = numbers[0]\n    for sign, b in zip(signs, numbers[1:]):\n        value = rules[sign](value, b)\n"
    )

    def line(r: random.Random) -> str:
        text = str(r.randint(0, 20))
        for _ in range(r.randint(1, 5)):
            text += r.choice(signs) + str(r.randint(0, 20))
        return f"solve({text!r})"

    return Draft(
        f"A line holds whole numbers (0 or more) with operators between them and no spaces. {said}. "
        f"All operators bind equally and are applied {order}. "
        "Return the value; an empty line gives 0.",
        "def solve(line: str) -> int:",
        f"    if not line:\n        return 0\n    rules = {{{table}}}\n    signs = [c for c in line if not c.isdigit()]\n"
        f"    numbers = [int(part) for part in re.split(r'\\D', line)]\n{walk}    return value",
        "hard",
        (
            "solve('')",
            "solve('7')",
            f"solve('3{signs[0]}4{signs[1]}5')",
            f"solve('9{signs[2]}1{signs[0]}2{signs[1]}6')",
            f"solve('10{signs[1]}0{signs[1]}3')",
        ),
        line,
        head="import re\n\n\n",
    )


def counter_class(rng: random.Random) -> Draft:
    """A small stateful class with its own rules."""
    top, step, start = rng.randint(6, 15), rng.randint(1, 4), rng.randint(0, 4)
    over, code = rng.choice(
        [
            (f"a result above {top} becomes {top}", f"self.value = min({top}, self.value + {step} * times)"),
            (f"a result above {top} wraps round modulo {top + 1}", f"self.value = (self.value + {step} * times) % {top + 1}"),
            (
                f"a call that would bring it above {top} changes nothing and returns False",
                f"if self.value + {step} * times > {top}:\n            return False\n        self.value += {step} * times",
            ),
        ]
    )
    undo = rng.random() < 0.5
    says_undo = " undo() takes back the last call of up that changed anything (it does nothing if there is none)." if undo else ""
    keep = "before = self.value\n        " if undo else ""
    log = "\n        if self.value != before:\n            self.history.append(before)" if undo else ""
    method = "\n\n    def undo(self):\n        if self.history:\n            self.value = self.history.pop()" if undo else ""

    def calls(r: random.Random) -> str:
        lines = ["g = Gauge()"]
        for _ in range(r.randint(1, 5)):
            lines.append("g.undo()" if undo and r.random() < 0.3 else f"g.up({r.randint(0, 4)})")
        return "\n".join([*lines, r.choice(["g.value", "[g.up(1), g.value]", "[g.up(), g.up(2), g.value]"])])

    return Draft(
        f"Write a class Gauge whose attribute value starts at {start}. up(times=1) raises value by {step} for each time; {over}. "
        f"Otherwise up returns True.{says_undo}",
        "class Gauge:",
        f"    def __init__(self):\n        self.value = {start}{chr(10) + '        self.history = []' if undo else ''}\n\n"
        f"    def up(self, times=1):\n        {keep}{code}{log}\n        return True{method}",
        "medium",
        ("g = Gauge()\ng.value", "g = Gauge()\n[g.up(), g.value]", "g = Gauge()\n[g.up(20), g.value]", "g = Gauge()\nh = Gauge()\ng.up(1)\nh.value")
        + (("g = Gauge()\ng.up(1)\ng.up(1)\ng.undo()\ng.undo()\ng.undo()\ng.value",) if undo else ()),
        calls,
        entry_point="Gauge",
    )


def windows(rng: random.Random) -> Draft:
    """A generator over stretches of its input."""
    size, step = rng.randint(2, 4), rng.randint(1, 3)
    last, said = rng.choice([(True, "A last stretch that is shorter is yielded too"), (False, "A stretch that would be shorter is not yielded")])
    give, code = rng.choice(
        [
            ("as a tuple", "tuple(part)"),
            ("its sum", "sum(part)"),
            ("its largest item", "max(part)"),
            ("its last item minus its first", "part[-1] - part[0]"),
        ]
    )
    check = "part" if last else f"len(part) == {size}"
    return Draft(
        f"Write a generator that goes over a list of integers in stretches of {size} items, "
        f"each beginning {step} after the one before, and yields for "
        f"each of them {'it ' if give == 'as a tuple' else ''}{give}. {said}.",
        "def solve(items: list):",
        f"    for start in range(0, len(items), {step}):\n        part = items[start:start + {size}]\n        if {check}:\n            yield {code}",
        "easy",
        ("list(solve([]))", "list(solve([5]))", "list(solve([1, 2, 3, 4, 5, 6, 7]))", "next(solve([9, 8, 7, 6]))", "list(solve([4, -4, 4, -4]))"),
        lambda r: f"list(solve({[r.randint(-9, 9) for _ in range(r.randint(2, 11))]!r}))",
    )


def calendar(rng: random.Random) -> Draft:
    """Dates on a planet with its own months and leap years."""
    months = [rng.randint(20, 40) for _ in range(rng.randint(4, 8))]
    every, extra, which = rng.randint(3, 7), rng.randint(1, 3), rng.randint(1, len(months))
    week = rng.randint(5, 9)
    question, body = rng.choice(
        [
            ("the number of the day within its year, counted from 1", "sum(length(year, m) for m in range(1, month)) + day"),
            ("how many days of the year come after it", "sum(length(year, m) for m in range(month, len(MONTHS) + 1)) - day"),
            (
                f"its weekday as a number from 0 to {week - 1}; a week has {week} days, and day 1 of month 1 of year 1 has weekday 0",
                f"(sum(length(y, m) for y in range(1, year) for m in range(1, len(MONTHS) + 1)) + "
                f"sum(length(year, m) for m in range(1, month)) + day - 1) % {week}",
            ),
        ]
    )

    def date(r: random.Random) -> str:
        month = r.randint(1, len(months))
        return f"solve({r.randint(1, 60)}, {month}, {r.randint(1, months[month - 1])})"

    return Draft(
        f"On another planet a year has {len(months)} months with {', '.join(map(str, months))} days. "
        f"In every year whose number is divisible by {every}, month {which} "
        f"has {extra} more day{'s' if extra > 1 else ''}. Months, days and years count from 1. Given a date, return {question}.",
        "def solve(year: int, month: int, day: int) -> int:",
        f"    return {body}",
        "medium",
        (
            "solve(1, 1, 1)",
            f"solve({every}, {len(months)}, {months[-1]})",
            f"solve({every}, {which}, {months[which - 1] + 1})",
            f"solve({every + 1}, {len(months)}, 1)",
        ),
        date,
        head=f"MONTHS = {months!r}\n\n\ndef length(year, month):\n"
        f"    return MONTHS[month - 1] + ({extra} if month == {which} and year % {every} == 0 else 0)\n\n\n",
    )


def _or(numbers: list[int]) -> str:
    return " or ".join(map(str, numbers))
