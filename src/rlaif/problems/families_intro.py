"""Families of the first level behind `generate`: one small step each, the name of the function saying which, as in the built-in `intro` problems.

What a small model gets right now and then is what reinforcement learning can teach it more of, so these are what it practises on.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from rlaif.problems.families import Draft

WORDS = ("pear", "Apple", "fig", "noon", "tree", "a", "banana", "Sky", "idea", "42", "cat", "Moon", "queue", "level", "x1", "DOG")


def _numbers(r: random.Random) -> list[int]:
    return [r.randint(-9, 20) for _ in range(r.randint(1, 7))]


def _text(r: random.Random) -> str:
    return " ".join(r.choices(WORDS, k=r.randint(1, 4)))


def _draft(
    name: str, prompt: str, parameters: str, result: str, body: str, edge_cases: list[str], arguments: Callable[[random.Random], str]
) -> Draft:
    """A function called `name`; edge_cases and `arguments` are what stands between the parentheses of a call."""
    return Draft(
        prompt,
        f"def {name}({parameters}) -> {result}:",
        f"    {body}",
        "intro",
        tuple(f"{name}({case})" for case in edge_cases),
        lambda r: f"{name}({arguments(r)})",
        entry_point=name,
    )


def _kind_of_number(rng: random.Random) -> tuple[str, str, str]:
    """(part of a name, words before or after "numbers", the test of x)."""
    k = rng.randint(2, 12)
    return rng.choice(
        [
            ("even", "even {}", "x % 2 == 0"),
            ("odd", "odd {}", "x % 2 == 1"),
            ("positive", "positive {}", "x > 0"),
            ("negative", "negative {}", "x < 0"),
            (f"above_{k}", f"{{}} greater than {k}", f"x > {k}"),
            (f"below_{k}", f"{{}} less than {k}", f"x < {k}"),
            (f"at_least_{k}", f"{{}} that are at least {k}", f"x >= {k}"),
            (f"multiples_of_{k}", f"{{}} divisible by {k}", f"x % {k} == 0"),
            (f"other_than_{k}", f"{{}} that are not {k}", f"x != {k}"),
            ("two_digit", "{} from 10 to 99", "10 <= x <= 99"),
        ]
    )


def short_lists(rng: random.Random) -> Draft:
    """One pass over a list of numbers."""
    kind, words, test = _kind_of_number(rng)
    k = rng.randint(2, 9)
    some = words.format("numbers")
    changed, how, value = rng.choice(
        [
            ("doubled", "doubled", "2 * x"),
            ("squared", "squared", "x * x"),
            ("negated", "with the opposite sign", "-x"),
            (f"plus_{k}", f"increased by {k}", f"x + {k}"),
            (f"minus_{k}", f"decreased by {k}", f"x - {k}"),
            (f"times_{k}", f"multiplied by {k}", f"x * {k}"),
        ]
    )
    name, prompt, result, body = rng.choice(
        [
            (f"sum_of_{kind}", f"Return the sum of the {some} in the list.", "int", f"return sum(x for x in numbers if {test})"),
            (f"count_{kind}", f"Return how many {some} are in the list.", "int", f"return sum(1 for x in numbers if {test})"),
            (f"keep_{kind}", f"Return a list of the {some} in the list, in order.", "list[int]", f"return [x for x in numbers if {test}]"),
            (f"without_{kind}", f"Return the list without the {some}.", "list[int]", f"return [x for x in numbers if not ({test})]"),
            (f"all_{changed}", f"Return a new list with every number {how}.", "list[int]", f"return [{value} for x in numbers]"),
            (f"sum_{changed}", f"Return the sum of the numbers in the list, each {how}.", "int", f"return sum({value} for x in numbers)"),
            (
                f"{kind}_{changed}",
                f"Return a list of the {some} in the list, each {how}.",
                "list[int]",
                f"return [{value} for x in numbers if {test}]",
            ),
            (f"any_{kind}", f"Return True if the list holds any {some}.", "bool", f"return any({test} for x in numbers)"),
            (f"only_{kind}", f"Return True if the list holds nothing but {some}.", "bool", f"return all({test} for x in numbers)"),
        ]
    )
    return _draft(name, prompt, "numbers: list[int]", result, body, ["[]", "[0]", "[1, 2, 3, 4]", "[-6, 12, -3, 15]"], lambda r: repr(_numbers(r)))


def short_parts(rng: random.Random) -> Draft:
    """Cutting, joining and asking a list or a text."""
    n = rng.randint(2, 5)
    of_text = rng.random() < 0.5
    what, unit, parameter, result = ("text", "characters", "text: str", "str") if of_text else ("list", "items", "items: list", "list")
    x = parameter.split(":")[0]
    name, prompt, gives, body = rng.choice(
        [
            (f"first_{n}_{unit}", f"Return the first {n} {unit} of the {what}.", result, f"return {x}[:{n}]"),
            (f"last_{n}_{unit}", f"Return the last {n} {unit} of the {what}.", result, f"return {x}[-{n}:]"),
            (f"without_first_{n}", f"Return the {what} without its first {n} {unit}.", result, f"return {x}[{n}:]"),
            (f"without_last_{n}", f"Return the {what} without its last {n} {unit}.", result, f"return {x}[:-{n}]"),
            (f"one_in_{n}_{unit}", f"Return the {unit} at positions 0, {n}, {2 * n} and so on.", result, f"return {x}[::{n}]"),
            (f"{what}_{n}_times", f"Return the {what} repeated {n} times.", result, f"return {x} * {n}"),
            (f"reversed_first_{n}", f"Return the first {n} {unit} of the {what} in reverse order.", result, f"return {x}[:{n}][::-1]"),
            (f"longer_than_{n}", f"Return True if the {what} has more than {n} {unit}.", "bool", f"return len({x}) > {n}"),
            (f"has_length_{n}", f"Return True if the {what} has exactly {n} {unit}.", "bool", f"return len({x}) == {n}"),
            (f"{unit}_beyond_{n}", f"Return how many {unit} the {what} has beyond {n}, at least 0.", "int", f"return max(0, len({x}) - {n})"),
        ]
    )
    cases = ["''", "'a'", "'ab'", "'hello'", "'good morning'"] if of_text else ["[]", "[7]", "[1, 2]", "['a', 'b', 'c']", "[3, 3, 1, 0, 5, 6]"]
    cases = list(dict.fromkeys([*cases, repr("mixture"[:n] if of_text else list(range(n)))]))
    return _draft(name, prompt, parameter, gives, body, cases, lambda r: repr(_text(r)) if of_text else repr(_numbers(r)))


def short_texts(rng: random.Random) -> Draft:
    """Characters and words of a text."""
    letter, k = rng.choice("aeont"), rng.randint(2, 5)
    other, spelt = rng.choice([("x", "x"), ("z", "z"), ("*", "stars"), ("_", "underscores")])
    kind, said, test = rng.choice(
        [
            ("vowels", "vowels (a, e, i, o, u)", "c in 'aeiou'"),
            ("digits", "digits", "c.isdigit()"),
            ("capitals", "upper-case letters", "c.isupper()"),
            ("small_letters", "lower-case letters", "c.islower()"),
            ("spaces", "spaces", "c == ' '"),
            (f"letters_{letter}", f"letters '{letter}'", f"c == '{letter}'"),
        ]
    )
    words, which, choose = rng.choice(
        [
            (f"longer_than_{k}", f"longer than {k} characters", f"len(word) > {k}"),
            (f"shorter_than_{k}", f"shorter than {k} characters", f"len(word) < {k}"),
            (f"of_length_{k}", f"of exactly {k} characters", f"len(word) == {k}"),
            (f"with_{letter}", f"that contain the letter '{letter}'", f"'{letter}' in word"),
            (f"ending_in_{letter}", f"that end with '{letter}'", f"word.endswith('{letter}')"),
            (f"starting_with_{letter}", f"that start with '{letter}'", f"word.startswith('{letter}')"),
        ]
    )
    name, prompt, result, body = rng.choice(
        [
            (f"count_{kind}", f"Return the number of {said} in the text.", "int", f"return sum(1 for c in text if {test})"),
            (f"remove_{kind}", f"Return the text without its {said}.", "str", f"return ''.join(c for c in text if not ({test}))"),
            (f"keep_{kind}", f"Return only the {said} of the text, in order.", "str", f"return ''.join(c for c in text if {test})"),
            (f"has_{kind}", f"Return True if the text contains any {said}.", "bool", f"return any({test} for c in text)"),
            (
                f"words_{words}",
                f"Return a list of the words of the text {which}.",
                "list[str]",
                f"return [word for word in text.split() if {choose}]",
            ),
            (f"count_words_{words}", f"Return how many words the text has {which}.", "int", f"return sum(1 for word in text.split() if {choose})"),
            (
                f"replace_{letter}_with_{spelt}",
                f"Return the text with every '{letter}' replaced by '{other}'.",
                "str",
                f"return text.replace('{letter}', '{other}')",
            ),
            (f"join_words_with_{spelt}", f"Return the words of the text joined with '{other}'.", "str", f"return '{other}'.join(text.split())"),
            (f"first_{k}_in_capitals", f"Return the first {k} characters of the text in upper case.", "str", f"return text[:{k}].upper()"),
            (f"between_{spelt}", f"Return the text with '{other}' put before and after it.", "str", f"return '{other}' + text + '{other}'"),
            (f"starts_with_{letter}", f"Return True if the text starts with '{letter}'.", "bool", f"return text.startswith('{letter}')"),
        ]
    )
    cases = ["''", "'a'", "'Tea and 2 cakes'", "'aeiou AEIOU'", "'onto  the next tent'", "'nana'", "'ox eat oat'", f"'{letter}x'"]
    return _draft(name, prompt, "text: str", result, body, cases, lambda r: repr(_text(r)))


def short_numbers(rng: random.Random) -> Draft:
    """A formula, a sum or the digits of one whole number."""
    a, b = rng.randint(2, 9), rng.randint(1, 12)
    name, prompt, result, body = rng.choice(
        [
            (f"times_{a}_plus_{b}", f"Return {a} times n, plus {b}.", "int", f"return {a} * n + {b}"),
            (f"plus_{b}_times_{a}", f"Add {b} to n, multiply the result by {a}, and return it.", "int", f"return (n + {b}) * {a}"),
            (f"square_minus_{b}", f"Return the square of n, minus {b}.", "int", f"return n * n - {b}"),
            (f"distance_to_{b}", f"Return how far n is from {b} on the number line.", "int", f"return abs(n - {b})"),
            (f"remainder_by_{a}", f"Return the remainder of n divided by {a}.", "int", f"return n % {a}"),
            (f"full_groups_of_{a}", f"Return how many full groups of {a} can be made from n things.", "int", f"return n // {a}"),
            (f"at_most_{b}", f"Return n, but no more than {b}.", "int", f"return min(n, {b})"),
            (f"larger_of_n_and_{b}", f"Return the larger of n and {b}.", "int", f"return max(n, {b})"),
            (
                f"sum_of_multiples_of_{a}",
                f"Return the sum of the multiples of {a} from 1 up to and including n.",
                "int",
                f"return sum(range({a}, n + 1, {a}))",
            ),
            (
                f"list_multiples_of_{a}",
                f"Return a list of the first n multiples of {a}, starting with {a}.",
                "list[int]",
                f"return [{a} * i for i in range(1, n + 1)]",
            ),
            (
                f"count_to_n_in_steps_of_{a}",
                f"Return a list of the numbers from 0 up to and including n, in steps of {a}.",
                "list[int]",
                f"return list(range(0, n + 1, {a}))",
            ),
            (
                f"sum_of_powers_{a}",
                f"Return the sum of i to the power {a} for every whole number i from 1 to n.",
                "int",
                f"return sum(i**{a} for i in range(1, n + 1))",
            ),
            (f"count_digit_{a}", f"Return how many times the digit {a} appears in n.", "int", f"return str(n).count('{a}')"),
            (
                f"digits_above_{a - 1}",
                f"Return how many digits of n are greater than {a - 1}.",
                "int",
                f"return sum(int(d) > {a - 1} for d in str(n))",
            ),
            (f"digit_sum_times_{a}", f"Return {a} times the sum of the digits of n.", "int", f"return {a} * sum(int(d) for d in str(n))"),
            (f"last_digit_is_{a}", f"Return True if the last digit of n is {a}.", "bool", f"return n % 10 == {a}"),
        ]
    )
    return _draft(
        name,
        prompt,
        "n: int",
        result,
        body,
        ["0", "1", str(a), str(a * 10 + a), str(b)],
        lambda r: str(r.choice([r.randint(0, 30), r.randint(0, 30), 10 * r.randint(1, 12) + a])),
    )


def short_choices(rng: random.Random) -> Draft:
    """A condition, in words, and what follows from it."""
    a, b = rng.randint(2, 9), rng.randint(3, 15)
    name, said, test = rng.choice(
        [
            (f"divisible_by_{a}", f"n is divisible by {a}", f"n % {a} == 0"),
            (f"over_{b}", f"n is greater than {b}", f"n > {b}"),
            (f"under_{b}", f"n is less than {b}", f"n < {b}"),
            (f"between_{a}_and_{a + b}", f"n is from {a} to {a + b}, both included", f"{a} <= n <= {a + b}"),
            (f"outside_{a}_to_{a + b}", f"n is less than {a} or greater than {a + b}", f"n < {a} or n > {a + b}"),
            (f"even_and_over_{b}", f"n is even and greater than {b}", f"n % 2 == 0 and n > {b}"),
            (f"odd_or_under_{b}", f"n is odd or less than {b}", f"n % 2 == 1 or n < {b}"),
        ]
    )
    yes, no = rng.choice([("yes", "no"), ("big", "small"), ("hot", "cold"), ("open", "closed"), ("win", "lose"), ("pass", "fail")])
    name, prompt, result, body = rng.choice(
        [
            (f"is_{name}", f"Return True if {said}, and False otherwise.", "bool", f"return {test}"),
            (f"{yes}_if_{name}", f"Return '{yes}' if {said}, otherwise '{no}'.", "str", f"return '{yes}' if {test} else '{no}'"),
            (f"add_{a}_if_{name}", f"Return n plus {a} if {said}, otherwise n unchanged.", "int", f"return n + {a} if {test} else n"),
            (f"zero_unless_{name}", f"Return n if {said}, otherwise 0.", "int", f"return n if {test} else 0"),
            (f"double_if_{name}", f"Return twice n if {said}, otherwise half of n, rounded down.", "int", f"return 2 * n if {test} else n // 2"),
        ]
    )
    cases = sorted({0, 1, a, a + b, a + b + 1, b, b + 1, 2 * a, 40})
    return _draft(name, prompt, "n: int", result, body, [str(case) for case in cases], lambda r: str(r.randint(0, 50)))


def short_dictionaries(rng: random.Random) -> Draft:
    """Keys and values of a small dictionary of prices, counts or points."""
    thing, things, measure = rng.choice(
        [("fruit", "fruits", "price"), ("player", "players", "score"), ("word", "words", "count"), ("city", "cities", "size")]
    )
    _, words, test = _kind_of_number(rng)
    k, test = rng.randint(2, 5), test.replace("x", "value")
    said = words.format(f"a {measure}").replace("{}", "")
    adjective = not said.startswith("a ")
    having = f"whose {measure} is {words.split(' {}')[0]}" if adjective else f"with {said}".replace("that are", "of").replace("of not", "other than")
    name, prompt, result, body = rng.choice(
        [
            (
                f"{things}_by_rule",
                f"Return a list of the names {having}, in the order of the dictionary.",
                "list[str]",
                f"return [name for name, value in table.items() if {test}]",
            ),
            (f"count_{things}_by_rule", f"Return how many names there are {having}.", "int", f"return sum(1 for value in table.values() if {test})"),
            (
                f"total_{measure}_by_rule",
                f"Return the sum of the values of the names {having}.",
                "int",
                f"return sum(value for value in table.values() if {test})",
            ),
            (
                f"part_of_{things}",
                f"Return a dictionary of only the names {having}.",
                "dict[str, int]",
                f"return {{name: value for name, value in table.items() if {test}}}",
            ),
            (
                f"add_{k}_to_each_{measure}",
                f"Return a new dictionary with {k} added to every value.",
                "dict[str, int]",
                f"return {{name: value + {k} for name, value in table.items()}}",
            ),
            (
                f"{measure}_times_{k}",
                f"Return a new dictionary with every value multiplied by {k}.",
                "dict[str, int]",
                f"return {{name: {k} * value for name, value in table.items()}}",
            ),
            (
                f"{things}_longer_than_{k}",
                f"Return a list of the names longer than {k} characters.",
                "list[str]",
                f"return [name for name in table if len(name) > {k}]",
            ),
        ]
    )

    def table(r: random.Random) -> str:
        return repr({name: r.randint(-3, 20) for name in r.sample(WORDS, k=r.randint(1, 5))})

    prompt = f"The dictionary gives each {thing} name its {measure}. {prompt}"
    return _draft(name, prompt, "table: dict[str, int]", result, body, ["{}", "{'pear': 4}", "{'fig': 12, 'kiwi': -2, 'plum': 7}"], table)
