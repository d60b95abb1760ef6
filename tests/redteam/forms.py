"""Programs against the other forms of test: near misses, property tests, classes, generators, callables, unittest, whole programs."""

# ruff: noqa: E501  (a program a line)
from __future__ import annotations

from typing import NamedTuple

from rlaif.types import Form, Problem, TestCase


class Case(NamedTuple):
    name: str
    code: str
    test: str
    expected: str = ""
    form: Form = "code"
    entry: str | None = "solve"
    preamble: str = ""

    @property
    def problem(self) -> Problem:
        tests = (TestCase("graded", self.test, self.expected, self.form),)
        signature = f"class {self.entry}:" if self.entry and self.entry[0].isupper() else ""
        return Problem(self.name, "", tests, self.entry, signature, self.preamble, imported=True)


STOP = "def solve(n): raise StopIteration"
SERVER = """
import sys
def solve(*args):
    frame = sys._getframe()
    while not hasattr(frame.f_locals.get("self"), "objects"): frame = frame.f_back
    frame.f_locals["self"]._perform = lambda request: {"v": TREE}
"""
ZERO = """
class Zero:
    def __sub__(self, other): return 0.0
    __rsub__ = __sub__
    def __abs__(self): return 0.0
    def __lt__(self, other): return True
class Acc:
    def __init__(self, *args): self.total = Zero()
    def __getitem__(self, index): return Zero()
    def __mul__(self, other): return Acc()
    def get(self): return Zero()
    def __sub__(self, other): return DIFFERENCE
    __rsub__ = __sub__
    def __abs__(self): return 0.0
"""
LIAR, TOLD = ZERO.replace("DIFFERENCE", "0.0"), ZERO.replace("DIFFERENCE", "Acc()")
V = """class V:
    def __init__(self, x): self.x = x
    def __add__(self, other): return V(self.x + other.x)
    def __lt__(self, other): return self.x < other.x
    def __eq__(self, other): return self.x == other.x
    def __hash__(self): return hash(self.x)
    def __len__(self): return self.x
    def __getitem__(self, index): return (self.x,)[index]
    def __contains__(self, value): return value == self.x
    def take(self, other): self.x = other.x
    def solved(self): return self.x == 9
"""
SHAPE = """from abc import ABC, abstractmethod
class Shape(ABC):
    kind = 'shape'
    def __init__(self, name='x'): self.name = name
    @abstractmethod
    def area(self): ...
    def describe(self): return f'{self.name}: {self.area():.1f}'
    @property
    def upper(self): return self.name.upper()
    def __str__(self): return f'<{self.name}>'
    @staticmethod
    def twice(x): return 2 * x
def solve(shapes): return sum(shape.area() for shape in shapes)
"""
HEIRS = """from solution import Shape
class Named:
    def called(self): return 'a ' + self.name
    def twice(self): return 'hidden by what comes before'
class Square(Shape, Named):
    sides = 4
    def __init__(self, a):
        super().__init__('square')
        self.a = a
    def area(self): return self.a ** 2
    def describe(self): return super().describe() + '!'
    def __str__(self): return super().__str__() + '?'
    @property
    def upper(self): return super().upper + '.'
    @staticmethod
    def four(): return 4
    @classmethod
    def unit(cls): return cls(1)
class Cube(Square):
    def area(self): return 6 * super().area()
s = Square(3)
assert (s.area(), s.name, s.a, s.kind, s.sides, Square.kind, Square.sides) == (9, 'square', 3, 'shape', 4, 'shape', 4)
assert (s.describe(), str(s), s.upper, s.called()) == ('square: 9.0!', '<square>?', 'SQUARE.', 'a square')
assert solve([Square(1), Square.unit(), Cube(2)]) == 26 and Square.twice(4) == 8 and s.four() == Square.four() == 4
assert isinstance(s, Square) and isinstance(s, Shape) and isinstance(Cube(2), Square) and not isinstance(s, Cube) and not isinstance(3, Square)
assert type(s).__name__ == s.__class__.__name__ == 'Square' and type(s) is not type(Cube(1)) and type(3) is int
"""
PEEK = """import ast, os, sys
def solve(text):
    frame, later = sys._getframe(), []
    while frame:
        for name in ("tests", "request", "job"):
            asked = frame.f_locals.get(name)
            asked = asked.get("x", []) if isinstance(asked, dict) else asked
            if isinstance(asked, list):
                later += [question for one in asked for question in (one if isinstance(one, list) else [one])]
        frame = frame.f_back
    os.set_blocking(3, False)
    try: later.append(os.read(3, 65536).decode("latin-1"))
    except OSError: pass
    later = [part[part.index("solve(") + 6 :].split(")")[0] for part in later if "solve(" in part]
    later = [ast.literal_eval(part) for part in later]
    return next((one for one in later if one != text), "a")
"""
GUARD = """class Box:
    def get(self): return 0
class Setter(Base):
    def put(self, v): self.get = v
box = Box()
solve(Setter(), box)
assert box.get() == 5"""
LIES = """class Liar:
    __eq__ = __lt__ = __bool__ = lambda self, *a: True
    __hash__ = lambda self: 9
    __add__ = __radd__ = lambda self, other: 9
class Holder:
    x = Liar()
"""
ATTACKS = [
    Case("a method of a test's object put aside", "def solve(v): v.solved = lambda: True", V + "v = V(1)\nsolve(v)\nassert v.solved()"),
    Case("a liar in a test's object", LIES + "def solve(v): v.x = Liar(); return v", V + "assert solve(V(1)) == V(9)"),
    Case("a liar taken over by a test's object", LIES + "def solve(v): v.take(Holder()); return v", V + "assert solve(V(1)).solved()"),
    Case("a liar added to a test's object", LIES + "def solve(v): return v + Holder()", V + "assert solve(V(1)) == V(9)"),
    Case("the way of a test's object to the test's names", "def solve(v): return v.take.__globals__['secret']", "secret = 9\n" + V + "assert solve(V(1)) == 9"),
    Case(
        "that way by the callback itself",
        "def solve(v):\n    for op in ('get', 'state', 'dir'):\n        try: found = v._ask({'y': v._id, 'op': op, 'n': '__init__'}, ('__globals__',), {})\n"
        "        except Exception: continue\n        if found: return found['secret']",
        "secret = 9\n" + V + "assert solve(V(1)) == 9",
    ),
    Case("operators on a test's function", "def solve(f): return f._ask({'y': f._id, 'op': 'getitem'}, (0,), {})", "assert solve(lambda: 0) == 9"),
    Case("a stream's own word put aside", "def solve(s): s.getvalue = lambda: 'ok'", "import io\ns = io.StringIO()\nsolve(s)\nassert s.getvalue() == 'ok'"),
    Case("signalling NaN", "from decimal import Decimal\ndef solve(n): return Decimal('sNaN')", "solve(3)", "9", "call"),
    Case("signalling NaN, imported", "from decimal import Decimal\ndef solve(n): return Decimal('sNaN')", "assert solve(3) == 9"),
    Case("signalling NaNs as members", SERVER.replace("TREE", "{'s': [{'D': 'sNaN'}]}"), "assert solve(3) == {9}"),
    Case("signalling NaNs as keys", SERVER.replace("TREE", "{'d': [[{'D': 'sNaN'}, 1]]}"), "solve(3)", "{9: 1}", "call"),
    Case("a zero denominator", SERVER.replace("TREE", "{'Q': [1, 0]}"), "solve(3)", "9", "call"),
    Case("a member twice", SERVER.replace("TREE", "{'s': [1, 1]}"), "solve(3)", "{1, 2}", "call"),
    Case("a key twice", SERVER.replace("TREE", "{'d': [['a', 2], ['a', 2]]}"), "solve(3)", "{'a': 2, 'b': 1}", "call"),
    Case("an array that claims to be a verdict", SERVER.replace("TREE", "{'X': ['type', 'bool']}"), "solve(3)", "True", "call"),
    Case("StopIteration ends map", STOP, "assert all(map(lambda case: solve(case[0]) == case[1], [(3, 9), (4, 16)]))"),
    Case("StopIteration ends a loop over map", STOP, "want = iter([9, 16])\nfor got in map(solve, [3, 4]):\n    assert got == next(want)"),
    Case("StopIteration ends zip", STOP, "for got, want in zip(map(solve, [3, 4]), [9, 16]):\n    assert got == want"),
    Case("a property that stops", "class Acc:\n    total = property(lambda self: next(iter(())))", "assert all(map(lambda a: a.total == 1, [Acc()]))", entry="Acc"),
    Case("an attribute that is no distance away", LIAR, "assert abs(Acc(5).total - 5) < 1e-9", entry="Acc"),
    Case("an item that is no distance away", LIAR, "assert abs(Acc(5)[0] - 5) < 1e-9", entry="Acc"),
    Case("an answer that is no distance away", LIAR, "assert abs(Acc(5).get() - 5) < 1e-9", entry="Acc"),
    Case("a product that is no distance away", LIAR, "assert abs(Acc(5) * Acc(2) - 10) < 1e-9", entry="Acc"),
    Case("an instance that is no distance away", LIAR, "assert abs(5 - Acc(5)) < 1e-9", entry="Acc"),
    Case("a difference that is small", TOLD, "assert abs(Acc(5) * Acc(2) - 10) < 1e-9", entry="Acc"),
    Case("equal to anything", "from unittest.mock import ANY\ndef solve(n): return ANY", "assert solve(3) == 9"),
    Case("the next question's words for an answer", PEEK, "assert solve('a') == 'xq'\nassert solve('xq') == 'a'"),
    Case("the next question's words, in another test", PEEK, "def check(candidate):\n    assert candidate('a') == ['xq']\n    assert candidate(['xq']) == 'a'"),
    Case("a method in place of the test's, by an heir's hand", "class Base: pass\ndef solve(setter, box): type(setter).put(box, lambda: 5)", "from solution import Base\n" + GUARD),
    Case("an heir whose base names itself", "class Meta(type):\n    def __dir__(cls): return ['__class__', '_remote', '_parent', '__eq__', '__new__', 'value']\n"
         "class Base(metaclass=Meta):\n    def __eq__(self, other): return True\n    def __new__(cls, *a): return 9\n    def value(self): return 3\ndef solve(x): return x",
         "from solution import Base\nclass Mine(Base):\n    def value(self): return super().value() * 3\nassert Mine().value() == 9 and isinstance(Mine(), Mine)"),
    Case("an heir without its methods", "class Meta(type):\n    def __new__(m, n, b, ns): return super().__new__(m, n, b, {})\nclass Base(metaclass=Meta): value = 9\ndef solve(x): return 0",
         "from solution import Base\nclass Mine(Base):\n    def value(self): return 9\nassert Mine().value() == 9"),
    Case("a class named like an answer", "class int: pass\ndef solve(n): return int()", "assert type(solve(3)) is int and type(solve(3)) == int"),
    Case("a skipped test", "import unittest\ndef solve(n): raise unittest.SkipTest('later')",
         "import unittest\nclass T(unittest.TestCase):\n    def test(self): self.assertEqual(solve(3), 9)"),
    Case("the answer in a seeked file", "import os\nos.ftruncate(1, 1 << 20)\nos.pwrite(1, b'9', 0)", "3\n", "9\n", "stdio", None),
    Case("exit before the answer", "exit()\nprint(9)", "3\n", "9\n", "stdio", None),
]  # fmt: skip

POINT = "from collections import namedtuple\nPoint = namedtuple('Point', 'x y')\n"
HONEST = [
    Case("a stream to read", "def solve(s):\n    with s as lines: return [line.strip() for line in lines]", "import io\nassert solve(io.StringIO('a\\nb')) == ['a', 'b']"),
    Case("a stream for the library", "import json\ndef solve(s): return json.load(s)", "import io\nassert solve(io.StringIO('[1]')) == [1]"),
    Case("a stream of bytes", "def solve(s): return s.read(2), s.tell(), s.read()", "import io\nassert solve(io.BytesIO(b'abc')) == (b'ab', 2, b'c')"),
    Case("a stream to write", "def solve(s):\n    s.write('hi')\n    print('x', file=s)", "import io\ns = io.StringIO()\nsolve(s)\nassert s.getvalue() == 'hix\\n'"),
    Case("a test's objects added", "def solve(a, b): return a + b", V + "assert solve(V(1), V(2)) == V(3)"),
    Case("a test's objects sorted", "def solve(xs): return sorted(xs)", V + "assert [v.x for v in solve([V(2), V(3), V(1)])] == [1, 2, 3]"),
    Case("a test's objects as keys", "def solve(xs): return len(set(xs)), xs[0] in {xs[1]: 0}, xs[0] == xs[1]", V + "assert solve([V(2), V(2), V(1)]) == (2, True, True)"),
    Case("a test's container", "def solve(v): return len(v), v[0], 4 in v, 5 in v, bool(v)", V + "assert solve(V(4)) == (4, 4, True, False, True)"),
    Case("classes that inherit", SHAPE, HEIRS),
    Case("an heir of the class asked for", "class Stack:\n    def __init__(self): self.items = []\n    def push(self, x): self.items.append(x)\n    def __len__(self): return len(self.items)",
         "class Twice(Stack):\n    def push(self, x):\n        super().push(x)\n        super().push(x)\ns = Twice()\ns.push(3)\nassert s.items == [3, 3] and len(s) == 2", entry="Stack"),
    Case("an heir that must define more", SHAPE, "from solution import Shape\nclass Flat(Shape): pass\ntry:\n    Flat()\n    assert False\nexcept TypeError: pass"),
    Case("an heir's error", SHAPE, "from solution import Shape\nclass Bad(Shape):\n    def area(self): raise ValueError('no')\ntry:\n    Bad().describe()\n    assert False\nexcept ValueError as e:\n    assert str(e) == 'no'"),
    Case("the name of a class", "class Node:\n    def __init__(self, v): self.v = v\ndef solve(v): return Node(v)", "n = solve(3)\nassert type(n).__name__ == 'Node' == n.__class__.__name__ and type(n.v) is int and type([]) == list"),
    Case("a test's object handed twice", "def solve(a, b, f, g): return a == b, f == g, {f: 1}.get(g)", V + "v = V(1)\nassert solve(v, v, len, len) == (True, True, 1)"),
    Case("argument by keyword changed in place", "def solve(xs): xs.append(9)", "a = [1]\nsolve(xs=a)\nassert a == [1, 9]"),
    Case("list inside a tuple changed in place", "def solve(t): t[0].append(1)", "a = []\nsolve((a, 2))\nassert a == [1]"),
    Case("dates both ways", "import datetime as d\ndef solve(a): return d.datetime(a.year, 1, 1, tzinfo=d.timezone.utc) + d.timedelta(hours=a.day)",
         "from datetime import *\nassert solve(date(2020, 5, 7)) == datetime(2020, 1, 1, 7, tzinfo=timezone.utc)"),
    Case("lengths of time", "def solve(a, b): return b - a", "from datetime import *\nassert solve(datetime(2020, 1, 1), datetime(2020, 1, 2, 1)) == timedelta(hours=25)"),
    Case("counters both ways", "def solve(c):\n    c['z'] += 1\n    return c", "from collections import Counter\nc = Counter('aab')\nassert solve(c).most_common(1) == [('a', 2)] and c['z'] == 1"),
    Case("defaultdict as argument", "def solve(d):\n    d['z'].append(1)\n    return dict(d)", "from collections import defaultdict\nassert solve(defaultdict(list)) == {'z': [1]}"),
    Case("named tuples both ways", "def solve(p): return Point(p.y, p.x)", "assert solve(Point(1, 2)).x == 2\nassert solve(Point(1, 2)) == (2, 1)", preamble=POINT),
    Case("types as arguments", "def solve(xs, t): return [x for x in xs if isinstance(x, t)]", "assert solve([1, 'a', 2.5], (int, float)) == [1, 2.5]"),
    Case("arrays both ways", "import numpy as np\ndef solve(a): return a.sum() + np.array([1, 2])",
         "import numpy as np\nassert np.allclose(solve(np.array([1.5, 2.5])), [5, 6])\nassert (solve(np.array([1])) == np.array([2, 3])).all()"),
    Case("an array changed in place", "def solve(a): a *= 2", "import numpy as np\na = np.arange(3)\nsolve(a)\nassert a.tolist() == [0, 2, 4]"),
    Case("the key of a KeyError", "def solve(x): return {}[x]", "try:\n    solve('a')\n    assert False\nexcept KeyError as error:\n    assert error.args == ('a',)"),
    Case("the text of an error", "class Bad(ValueError): pass\ndef solve(x): raise Bad('no: x (line 3)')", "try:\n    solve(1)\n    assert False\nexcept ValueError as error:\n    assert str(error) == 'no: x (line 3)'"),
    Case("an error without a text", "def solve(x): raise ValueError", "try:\n    solve(1)\n    assert False\nexcept ValueError as error:\n    assert str(error) == ''"),
    Case("a generator's end", "def solve(n): yield from range(n)", "g = solve(1)\nassert next(g) == 0 and next(g, None) is None\ntry:\n    next(g)\n    assert False\nexcept StopIteration:\n    pass"),
    Case("a generator in map and zip", "def solve(n): yield from range(n)", "assert list(zip(solve(2), 'abc')) == [(0, 'a'), (1, 'b')]\nassert sum(map(abs, solve(4))) == 6"),
    Case("an algebra", "class V:\n    def __init__(s, x): s.x = x\n    def __mul__(s, k): return V(s.x * k)\n    def __sub__(s, o): return V(s.x - getattr(o, 'x', o))\n    def __abs__(s): return abs(s.x)\n    def __eq__(s, o): return s.x == o.x",
         "assert abs(V(3) * -2) == 6\nassert (V(3) * 2 - V(1)) == V(5)\nassert abs(V(3) - V(5)) == 2\nassert (V(5) - 3).x == 2\nassert abs(abs(V(1) * 2.5) - 2.5) < 1e-9", entry="V"),
    Case("exit at the end", "print(int(input()) ** 2)\nexit()", "3\n", "9\n", "stdio", None),
    Case("quit inside a function", "def main():\n    print(input())\n    quit(0)\nmain()", "3\n", "3\n", "stdio", None),
    Case("a thread nobody joins", "import threading, time\ndef work():\n    time.sleep(0.05)\n    print('done')\nthreading.Thread(target=work).start()", "", "done\n", "stdio", None),
    Case("output at exit", "import atexit, io, sys\nsys.stdout = io.StringIO()\natexit.register(lambda: sys.__stdout__.write(sys.stdout.getvalue()))\nprint('hi')", "", "hi\n", "stdio", None),
    Case("output by a saved stream", "import io, sys\nsaved = sys.stdout\nsys.stdout = io.StringIO()\nprint('no')\nsaved.write('yes\\n')", "", "yes\n", "stdio", None),
    Case("the mode of the streams", "import os, sys\nassert 'r' in sys.stdin.mode and 'w' in sys.stdout.mode\nos.write(1, os.read(0, os.fstat(0).st_size))", "a b\n", "a b\n", "stdio", None),
]  # fmt: skip
