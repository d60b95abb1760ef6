"""Every public set's layout and its trap, on rows of the same layout written for these tests. No network, no pickle, no remote code."""

from __future__ import annotations

import base64
import json
import pickle
import zlib
from pathlib import Path

import pytest

from rlaif.errors import EnvironmentFailure, ProblemFileError, UsageError
from rlaif.problems import contests, datasets_hub, functions, load_problems
from rlaif.problems.contests import SkipRow, read_pickled_text
from rlaif.problems.fields import Row
from rlaif.sandbox import Sandbox
from rlaif.types import Problem


def row(data: dict) -> Row:
    return Row(data, "hub/set", 3)


APPS_STDIO = {
    "problem_id": 17,
    "question": "Read n and print its double.",
    "solutions": json.dumps(["print int(raw_input()) * 2", "print(int(input()) * 2)"]),
    "input_output": json.dumps({"inputs": ["1\n", ["2"], "30\n"], "outputs": ["2\n", ["4"], "60\n"]}),
    "difficulty": "introductory",
    "starter_code": "",
}
APPS_CALL = {
    "problem_id": 18,
    "question": "Add up the values of a dictionary.",
    "solutions": json.dumps(["def total(d):\n    return sum(d.values())"]),
    "input_output": json.dumps({"fn_name": "total", "inputs": [[{"1": 2}], [{"-1": 5, "2": 3}]], "outputs": [[2], [8]]}),
    "difficulty": "competition",
    "starter_code": "def total(d):\n\t",
}
TWO_SUM = "class Solution:\n    def twoSum(self, nums, target):\n        return [0, 1]\n"
CONTEST = {
    "name": "1575_A. Double",
    "description": "Print the double.",
    "public_tests": {"input": ["1\n"], "output": ["2\n"]},
    "private_tests": {"input": ["5\n", "0\n"], "output": ["10\n", "0\n"]},
    "generated_tests": {"input": ["7\n"] * 100, "output": ["14\n"] * 100},
    "solutions": {"language": [2, 1, 3], "solution": ["int main(){}", "print input()*2", "print(int(input()) * 2)"]},
    "cf_rating": 800,
    "input_file": "",
    "output_file": "",
}
PRIVATE = json.dumps([{"input": "7", "output": "14", "testtype": "stdin"}, {"input": "8", "output": "16", "testtype": "stdin"}])
LIVE = {
    "question_id": "abc_1",
    "question_content": "Print the double.",
    "starter_code": "",
    "difficulty": "easy",
    "public_test_cases": json.dumps([{"input": "1", "output": "2", "testtype": "stdin"}]),
    "private_test_cases": base64.b64encode(zlib.compress(pickle.dumps(PRIVATE))).decode(),
    "metadata": "{}",
}
LIVE_CALL = {
    **LIVE,
    "starter_code": "class Solution:\n    def add(self, a: int, words: List[str]) -> int:\n        ",
    "public_test_cases": json.dumps([{"input": '1\n["a", "b"]', "output": "3", "testtype": "functional"}]),
    "private_test_cases": json.dumps([{"input": "2\n[]", "output": "null", "testtype": "functional"}]),
    "metadata": json.dumps({"func_name": "add"}),
}
KOD = {
    "question_id": "Prefill_1_I",
    "question": "Double a number.",
    "solution": "def double(x):\n    return 2 * x",
    "test": "from solution import double\nimport math\n\nBIG = 10**9\n\ndef test_small():\n    assert double(2) == 4\n\n"
    "def test_big():\n    assert double(BIG) == 2 * BIG\n",
    "test_info": [{"function_name": "double", "function_declaration": "def double(x):", "parameter_list": "(x)", "docstring": ""}],
    "gpt_difficulty": "hard",
    "subset": "Prefill",
    "style": "instruct",
}
ACE = {
    "id": "oss_1",
    "source": "oss",
    "question": "Double a number.",
    "test_cases": ["assert double(1) == 2", "assert double(", "assert double(3) == 6"],
    "inferences": [
        {"completion": "def double(x):\n    return x", "pass_rate": 0.3},
        {"completion": "def double(x):\n    return x + x", "pass_rate": 1.0},
    ],
}
LEET = {
    "task_id": "two-sum",
    "difficulty": "Easy",
    "problem_description": "Find two numbers that add up to the target.",
    "starter_code": "class Solution:\n    def twoSum(self, nums: List[int], target: int) -> List[int]:\n        ",
    "prompt": "import random\nfrom typing import *\n\ndef is_same_list(a, b):\n    return a == b\n",
    "completion": TWO_SUM,
    "entry_point": "Solution().twoSum",
    "test": "def check(candidate):\n    assert candidate(nums = [3, 3], target = 6) == [0, 1]\n"
    "    assert candidate(nums = [2, 7], target = 9) == [0, 1]\n",
}
BIG = {
    "task_id": "BigCodeBench/1",
    "complete_prompt": 'import itertools\n\ndef task_func(n):\n    """Return n squared."""\n',
    "instruct_prompt": "Return n squared.",
    "canonical_solution": "    return n * n",
    "test": "import unittest\n\nclass TestCases(unittest.TestCase):\n    def test_two(self):\n        self.assertEqual(task_func(2), 4)\n",
    "entry_point": "task_func",
    "libs": "['itertools']",
}
PLUS = {
    "task_id": 2,
    "code": "def double(x):\n    return 2 * x",
    "prompt": "Write a function to double.",
    "test_imports": [],
    "test_list": ["assert double(1) == 2", "assert double(2) == 4", "assert double(3) == 6"],
    "test": "inputs = [[4], [5]]\nresults = [8, 10]\nfor inp, exp in zip(inputs, results):\n    assert double(*inp) == exp\n",
}
READERS = {
    "apps": (APPS_STDIO, contests.from_apps),
    "apps_call": (APPS_CALL, contests.from_apps),
    "taco": (APPS_STDIO, contests.from_taco),
    "code_contests": (CONTEST, contests.from_code_contests),
    "kodcode": (KOD, functions.from_kodcode),
    "acecode": (ACE, functions.from_acecode),
    "leetcode": (LEET, functions.from_leetcode),
    "bigcodebench": (BIG, functions.from_bigcodebench),
    "mbpp+": (PLUS, functions.from_mbpp_plus),
}


def test_apps_programs_on_standard_input() -> None:
    problem = contests.from_apps(row(APPS_STDIO), "train")
    assert (problem.id, problem.entry_point, problem.difficulty) == ("apps/train/17", None, "easy")
    assert [(t.form, t.input, t.expected, t.role) for t in problem.tests] == [
        ("stdio", "1\n", "2\n", "shown"),
        ("stdio", "2", "4", "graded"),
        ("stdio", "30\n", "60\n", "held_out"),
    ]
    assert problem.reference == "print(int(input()) * 2)", "a solution of Python 2 is passed over"


def test_apps_calls_are_unwrapped_and_integer_keys_come_back() -> None:
    problem = contests.from_apps(row(APPS_CALL), "train")
    assert [(t.input, t.expected) for t in problem.tests] == [("total({1: 2})", "2"), ("total({-1: 5, 2: 3})", "8")]
    method = {
        **APPS_CALL,
        "starter_code": TWO_SUM,
        "solutions": "",
        "input_output": json.dumps({"fn_name": "twoSum", "inputs": [[[1], 2]], "outputs": [[0, 1]]}),
    }
    problem = contests.from_apps(row(method), "train")
    assert (problem.entry_point, problem.tests[0].input, problem.tests[0].expected) == ("Solution", "Solution().twoSum([1], 2)", "[0, 1]")
    assert problem.reference is None


@pytest.mark.parametrize("text", ["", "{}", json.dumps({"inputs": [], "outputs": []})])
def test_apps_without_tests_is_left_out(text: str) -> None:
    with pytest.raises(SkipRow, match="no tests"):
        contests.from_apps(row({**APPS_STDIO, "input_output": text}), "train")


def test_apps_with_numbers_that_python_refuses_is_left_out() -> None:
    text = '{"inputs": [[1]], "outputs": [[' + "9" * 5000 + ']], "fn_name": "f"}'
    with pytest.raises(SkipRow, match="too long"):
        contests.from_apps(row({**APPS_CALL, "input_output": text}), "train")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"input_output": "{oops"}, "input_output"),
        ({"input_output": '{"inputs": ["1"], "outputs": []}'}, "input_output"),
        ({"input_output": '{"inputs": [5], "outputs": [5], "fn_name": "f"}'}, "input_output"),
        ({"question": None}, "question"),
        ({"solutions": 5}, "solutions"),
    ],
)
def test_apps_malformed(change: dict, field: str) -> None:
    with pytest.raises(ProblemFileError) as caught:
        contests.from_apps(row({**APPS_CALL, **change}), "train")
    assert (caught.value.line, caught.value.field) == (3, field)


def test_code_contests() -> None:
    problem = contests.from_code_contests(row(CONTEST), "test")
    roles = [test.role for test in problem.tests]
    assert (roles.count("shown"), roles.count("graded"), roles.count("held_out")) == (1, 2, contests.MOST_TESTS)
    assert problem.reference == "print(int(input()) * 2)" and problem.difficulty == "easy" and problem.split == "test"
    for change, why in (({"description": "See <image>"}, "picture"), ({"input_file": "a.in"}, "files")):
        with pytest.raises(SkipRow, match=why):
            contests.from_code_contests(row({**CONTEST, **change}), "test")
    few = {**CONTEST, "private_tests": {"input": [], "output": []}}
    assert {test.role for test in contests.from_code_contests(row(few), "test").tests} == {"shown", "graded", "held_out"}
    with pytest.raises(ProblemFileError, match="1 inputs and 0 outputs"):
        contests.from_code_contests(row({**CONTEST, "public_tests": {"input": ["1"], "output": []}}), "test")


def test_livecodebench_reads_packed_tests_without_unpickling(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args: object) -> None:
        raise AssertionError("something was unpickled")

    monkeypatch.setattr(pickle, "loads", never)
    monkeypatch.setattr(pickle, "Unpickler", never)
    problem = contests.from_livecodebench(row(LIVE), "test")
    assert [(t.role, t.input, t.expected) for t in problem.tests] == [("shown", "1", "2"), ("graded", "7", "14"), ("held_out", "8", "16")]


@pytest.mark.parametrize("protocol", range(1, 6))
@pytest.mark.parametrize("text", ["", "x", "é" * 200, "y" * 70_000])
def test_a_pickled_text_is_read_by_its_bytes(protocol: int, text: str) -> None:
    assert read_pickled_text(pickle.dumps(text, protocol)) == text


class Evil:
    def __reduce__(self):
        return (print, ("this ran",))


@pytest.mark.parametrize(
    "payload", [pickle.dumps(Evil()), pickle.dumps(["a"]), pickle.dumps(5), b"", b"\x80\x04", b"X\xff\xff\xff\xffabc.", pickle.dumps("a") + b"more"]
)
def test_any_other_pickle_is_refused_and_nothing_runs(payload: bytes, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(ValueError, match="other than one string"):
        read_pickled_text(payload)
    packed = base64.b64encode(zlib.compress(payload)).decode()
    with pytest.raises(ProblemFileError, match="private_test_cases"):
        contests.from_livecodebench(row({**LIVE, "private_test_cases": packed}), "test")
    assert capsys.readouterr().out == ""


def test_a_compressed_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contests, "LARGEST_ARCHIVE", 1000)
    bomb = base64.b64encode(zlib.compress(b"0" * 10_000)).decode()
    with pytest.raises(ProblemFileError, match="unpacks to more than 1000 bytes"):
        contests.from_livecodebench(row({**LIVE, "private_test_cases": bomb}), "test")


def test_livecodebench_functions() -> None:
    problem = contests.from_livecodebench(row(LIVE_CALL), "test")
    assert (problem.entry_point, problem.tests[0].input, problem.tests[0].expected) == ("Solution", "Solution().add(1, ['a', 'b'])", "3")
    assert problem.tests[1].expected == "None"
    with pytest.raises(ProblemFileError, match="func_name is missing"):
        contests.from_livecodebench(row({**LIVE_CALL, "metadata": "{}"}), "test")


def test_leetcode_answers_find_what_leetcode_imports(sandbox: Sandbox) -> None:
    code = "class Solution:\n    def add(self, a, words: List[str]) -> Optional[int]:\n        return len(Counter(words)) + 1 if words else None\n"
    method = {**APPS_CALL, "starter_code": LIVE_CALL["starter_code"], "solutions": json.dumps([code])}
    method["input_output"] = json.dumps({"fn_name": "add", "inputs": [[1, ["a", "b"]], [2, []]], "outputs": [[3], [None]]})
    problem = contests.from_apps(row(method), "train")
    for one in (problem, contests.from_livecodebench(row(LIVE_CALL), "test")):
        report = sandbox.run(one, problem.reference, ("shown", "graded", "held_out"))
        assert report.all_passed, (one.id, report.message)
    assert contests.from_apps(row(APPS_CALL), "train").preamble == "", "a plain function brings its own imports"


def test_kodcode_makes_one_test_of_each_pytest_function() -> None:
    problem = functions.from_kodcode(row(KOD), "train")
    assert problem.entry_point == "double" and problem.difficulty == "hard"
    assert [test.role for test in problem.tests] == ["shown", "graded"]
    assert "from solution" not in problem.tests[0].input and problem.tests[1].input.endswith("test_big()")
    unnamed = functions.from_kodcode(row({**KOD, "test_info": None}), "train")
    assert unnamed.entry_point == "double"
    with pytest.raises(SkipRow, match="pytest"):
        functions.from_kodcode(row({**KOD, "test": "import pytest\n" + KOD["test"]}), "train")
    for change in ({"solution": "import pandas as pd\n" + KOD["solution"]}, {"test": "from numpy import array\n" + KOD["test"]}):
        with pytest.raises(SkipRow, match=r"needs (pandas|numpy)"):
            functions.from_kodcode(row(KOD | change), "train")
    judge = {**KOD, "test": json.dumps({"stdin": ["1", "2"], "stdout": ["2", "4"]}), "solution": "print(2 * int(input()))"}
    problem = functions.from_kodcode(row(judge), "train")
    assert problem.entry_point is None and {test.form for test in problem.tests} == {"stdio"} and problem.reference


def test_acecode_drops_broken_asserts_and_takes_a_passing_sample() -> None:
    problem = functions.from_acecode(row(ACE), "train")
    assert len(problem.tests) == 2 and problem.reference == "def double(x):\n    return x + x" and problem.signature == "def double(x):"
    assert functions.from_acecode(row({**ACE, "inferences": None}), "train").reference is None


def test_leetcode_lowers_a_check_of_plain_asserts() -> None:
    problem = functions.from_leetcode(row(LEET), "test")
    assert [test.input for test in problem.tests] == [
        "Solution().twoSum(nums=[3, 3], target=6)",
        "Solution().twoSum(nums=[2, 7], target=9)",
    ]
    assert problem.entry_point == "Solution" and "is_same_list" in problem.preamble and problem.reference == TWO_SUM
    helper = "def check(candidate):\n    assert is_same_list(candidate([3, 3], 6), [0, 1])\n"
    whole = functions.from_leetcode(row({**LEET, "test": helper}), "test")
    assert len(whole.tests) == 1 and "check_method(candidate().twoSum)" in whole.tests[0].input
    with pytest.raises(ProblemFileError, match=r"Solution\(\).name"):
        functions.from_leetcode(row({**LEET, "entry_point": "twoSum"}), "test")


def test_bigcodebench_leaves_out_what_needs_other_libraries() -> None:
    problem = functions.from_bigcodebench(row(BIG), "test")
    assert problem.preamble == "import itertools\n" and problem.prompt == "Return n squared."
    with pytest.raises(SkipRow, match="needs numpy"):
        functions.from_bigcodebench(row({**BIG, "libs": "['itertools', 'numpy']"}), "test")
    with pytest.raises(SkipRow, match="needs faker"):
        functions.from_bigcodebench(row({**BIG, "test": "from faker import Faker\n" + BIG["test"]}), "test")
    with pytest.raises(ProblemFileError, match="TestCases"):
        functions.from_bigcodebench(row({**BIG, "test": "x = 1"}), "test")


def test_mbpp_plus() -> None:
    problem = functions.from_mbpp_plus(row(PLUS), "test")
    assert [(test.role, test.form) for test in problem.tests] == [("shown", "code"), ("graded", "code")]
    assert "for inp, exp" in problem.tests[1].input and problem.entry_point == "double"


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox() as box:
        yield box


WRONG = {
    "stdio": "print(0)",
    "double": "def double(x):\n    return 0",
    "total": "def total(d):\n    return 0",
    "task_func": "def task_func(n):\n    return 0",
}
WRONG["Solution"] = TWO_SUM.replace("[0, 1]", "[1, 0]")


@pytest.mark.parametrize("name", READERS)
def test_references_pass_and_wrong_programs_fail_in_the_sandbox(name: str, sandbox: Sandbox) -> None:
    data, reader = READERS[name]
    problem: Problem = reader(row(data), "test")
    report = sandbox.run(problem, problem.reference, ("shown", "graded", "held_out"))
    assert report.all_passed, report
    assert not sandbox.run(problem, WRONG[problem.entry_point or "stdio"], ("shown", "graded", "held_out")).all_passed


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("HumanEval", "humaneval"),
        ("openai/HumanEval+", "humaneval+"),
        ("humaneval-plus", "humaneval+"),
        ("MBPP", "mbpp"),
        ("code-contests", "code_contests"),
        ("deepmind/code_contests", "code_contests"),
        ("LeetCodeDataset", "leetcode"),
        ("AceCode", "acecode"),
    ],
)
def test_names(name: str, key: str) -> None:
    assert datasets_hub._key(name) == key


def test_unknown_names_suggest() -> None:
    with pytest.raises(UsageError, match="did you mean 'humaneval'"):
        load_problems("humanevl")
    with pytest.raises(UsageError, match="one of humaneval"):
        load_problems("zzz")


def test_offline_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    class Offline:
        @staticmethod
        def load_dataset(*args: object, **kwargs: object) -> None:
            assert "trust_remote_code" not in kwargs
            raise ConnectionError("no route to host")

    monkeypatch.setattr(datasets_hub, "_datasets", lambda: Offline)
    for name in datasets_hub.NAMES:
        with pytest.raises(EnvironmentFailure) as caught:
            load_problems(name)
        assert caught.value.exit_code == 3 and "no route to host" in str(caught.value) and "go online once" in str(caught.value)


@pytest.mark.parametrize(("name", "builder"), [("apps", "json"), ("taco", "parquet"), ("livecodebench", "json")])
def test_sets_with_a_loading_script_are_read_from_their_plain_files(name: str, builder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, list[str]]] = []

    class Hub:
        @staticmethod
        def load_dataset(path: str, config: str | None = None, *, split: str, data_files: list[str] | None = None) -> list[dict]:
            asked.append((path, data_files or []))
            return [LIVE if name == "livecodebench" else APPS_STDIO]

    monkeypatch.setattr(datasets_hub, "_datasets", lambda: Hub)
    assert load_problems(name)
    for path, files in asked:
        assert path == builder and files and all(file.startswith("hf://datasets/") for file in files), asked


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError("No module named 'datasets'")

    monkeypatch.setattr(datasets_hub.importlib, "import_module", missing)
    with pytest.raises(EnvironmentFailure, match=r"pip install 'rlaif\[data\]'"):
        load_problems("humaneval")


def test_rows_that_cannot_be_used_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    rows = [APPS_STDIO, {**APPS_STDIO, "input_output": ""}, {**APPS_STDIO, "input_output": ""}]
    problems = datasets_hub.read_rows(rows, contests.from_apps, "set", "train")
    assert len(problems) == 1 and "2 problems left out: it has no tests" in caplog.text
    with pytest.raises(ProblemFileError, match="no problem that can be used"):
        datasets_hub.read_rows(rows[1:], contests.from_apps, "set", "train")


def test_single_split_sets_are_split_by_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{**ACE, "id": str(i), "question": f"Double, {i}."} for i in range(20)]
    monkeypatch.setattr(datasets_hub, "_fetch", lambda *args: rows)
    test, train = load_problems("acecode", split="test"), load_problems("acecode", split="train")
    assert (len(test), len(train)) == (4, 16) and not {p.id for p in test} & {p.id for p in train}


@pytest.mark.parametrize(("name", "reset"), [("apps", {"id": 0}), ("taco", {"problem_id": None})])
def test_sets_that_count_each_split_from_zero_keep_their_ids_apart(name: str, reset: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {key: value for key, value in (APPS_STDIO | reset).items() if value is not None}
    monkeypatch.setattr(datasets_hub, "_fetch", lambda *args: [row])
    first, second = load_problems(name)
    assert (first.split, second.split) == ("train", "test") and first.id != second.id


def test_folders_keep_the_splits_and_line_numbers_of_their_rows(tmp_path: Path) -> None:
    plain = {"prompt": "Add.", "test_input": "add(2, 3)", "expected_output": "5"}
    lines = [json.dumps(plain | {"id": f"a{i}", "split": split}) for i, split in enumerate(("train", "validation", "test", "train"))]
    (tmp_path / "mine.jsonl").write_text("\n".join(lines))
    assert [p.split for p in load_problems(str(tmp_path))] == ["train", "validation", "test", "train"]
    (tmp_path / "mine.jsonl").write_text("\n\n" + lines[0] + "\n\n[1]\n")
    with pytest.raises(ProblemFileError, match=r"mine.jsonl, line 5\nexpected a JSON object, found a list"):
        load_problems(str(tmp_path))
    (tmp_path / "mine.jsonl").write_text(lines[0])
    (tmp_path / "test.jsonl").write_text(lines[0])
    with pytest.raises(ProblemFileError, match=r"test.jsonl, field 'id'\n'a0' was used in .*mine.jsonl already"):
        load_problems(str(tmp_path))


def test_damaged_folders_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    for name, content in (("a/train.parquet", b"PAR1 and no more"), ("b/state.json", b"{}")):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ProblemFileError, match="`datasets` cannot read it"):
            load_problems(str((tmp_path / name).parent))


def test_folders_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rows = [{**KOD, "question_id": f"q{i}", "question": f"Double, {i}."} for i in range(6)]
    table = datasets.Dataset.from_list(rows)
    datasets.DatasetDict({"train": table.select(range(1, 6)), "test": table.select([0])}).save_to_disk(str(tmp_path / "dict"))
    problems = load_problems(str(tmp_path / "dict"))
    assert [p.split for p in problems].count("test") == 1 and problems[0].source == "kodcode"
    table.save_to_disk(str(tmp_path / "single"))
    assert {p.split for p in load_problems(str(tmp_path / "single"))} == {"train", "test"}
    (tmp_path / "files").mkdir()
    table.to_parquet(str(tmp_path / "files" / "validation-00000-of-00001.parquet"))
    (tmp_path / "files" / "train.jsonl").write_text("\n".join(json.dumps(APPS_STDIO | {"problem_id": i}) for i in range(3)))
    problems = load_problems(str(tmp_path / "files"))
    assert {(p.source, p.split) for p in problems} == {("kodcode", "validation"), ("apps", "train")}
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "data.pkl").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ProblemFileError, match="no data set in this folder"):
        load_problems(str(tmp_path / "empty"))
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "a.jsonl").write_text('{"colour": "red"}')
    with pytest.raises(ProblemFileError, match="layout is not known: columns colour"):
        load_problems(str(tmp_path / "odd"))
