"""Correct but slow answers to built-in training problems, as people and models write them: problem id -> program."""

from __future__ import annotations

SLOW: dict[str, str] = {
    "lists/has_duplicates": """
def has_duplicates(items):
    for i in range(len(items)):
        for j in range(i + 1, len(items)):
            if items[i] == items[j]:
                return True
    return False
""",
    "dictionaries/tally_votes": """
def tally_votes(votes):
    return {name: votes.count(name) for name in votes}
""",
    "lists/running_maximum": """
def running_maximum(numbers):
    return [max(numbers[: i + 1]) for i in range(len(numbers))]
""",
    "lists/average_of_list": """
def average_of_list(numbers):
    total = 0
    for i in range(len(numbers)):
        total = sum(numbers[: i + 1])
    return total / len(numbers) if numbers else 0.0
""",
    "lists/flatten_once": """
def flatten_once(lists):
    result = []
    for inner in lists:
        for x in inner:
            result = result + [x]
    return result
""",
    "lists/spread_of": """
def spread_of(numbers):
    best = 0
    for a in numbers:
        for b in numbers:
            if a - b > best:
                best = a - b
    return best
""",
    "lists/names_starting_with": """
def names_starting_with(names, letter):
    result = []
    for i in range(len(names)):
        result = [name for name in names[: i + 1] if name[:1].lower() == letter.lower()]
    return result
""",
    "numbers/fibonacci_number": """
def fibonacci_number(n):
    if n < 2:
        return n
    return fibonacci_number(n - 1) + fibonacci_number(n - 2)
""",
    "numbers/count_divisors": """
def count_divisors(n):
    count = 0
    for a in range(1, n + 1):
        for b in range(1, n + 1):
            if a * b == n:
                count += 1
    return count
""",
    "search_and_sort/competition_places": """
def competition_places(scores):
    return [1 + len([other for other in set(scores) if other > score]) for score in scores]
""",
    "sets_and_tuples/same_members": """
def same_members(first, second):
    return all(x in second for x in first) and all(x in first for x in second)
""",
    "sets_and_tuples/overlap_fraction": """
def overlap_fraction(left, right):
    both, union = [], []
    for x in left + right:
        if x not in union:
            union.append(x)
            if x in left and x in right:
                both.append(x)
    if not union:
        return (1, 1)
    a, b = len(both), len(union)
    while b:
        a, b = b, a % b
    return (len(both) // a, len(union) // a)
""",
    "strings/sum_digits_in_text": """
def sum_digits_in_text(text):
    total = 0
    for i in range(len(text)):
        total = sum(int(c) for c in text[: i + 1] if c.isdigit())
    return total
""",
    "strings/count_letter": """
def count_letter(text, letter):
    count = 0
    for i in range(len(text)):
        count = len([c for c in text[: i + 1] if c.lower() == letter.lower()])
    return count
""",
    "first_lists/sort_ascending": """
def sort_ascending(numbers):
    numbers = list(numbers)
    for i in range(len(numbers)):
        for j in range(len(numbers) - 1 - i):
            if numbers[j] > numbers[j + 1]:
                numbers[j], numbers[j + 1] = numbers[j + 1], numbers[j]
    return numbers
""",
    "first_lists/index_of_value": """
def index_of_value(values, value):
    for i in range(len(values)):
        if values[: i + 1].count(value) == 1:
            return i
    return -1
""",
    "first_lists/keep_long_words": """
def keep_long_words(words, n):
    kept = []
    for i in range(len(words)):
        kept = [word for word in words[: i + 1] if len(word) >= n]
    return kept
""",
    "first_lists/add_to_each": """
def add_to_each(numbers, amount):
    result = []
    for i in range(len(numbers)):
        result = [n + amount for n in numbers[: i + 1]]
    return result
""",
    "first_lists/lengths_of_texts": """
def lengths_of_texts(texts):
    lengths = []
    for i in range(len(texts)):
        lengths = [len(text) for text in texts[: i + 1]]
    return lengths
""",
    "first_lists/replace_value": """
def replace_value(values, old, new):
    result = []
    for i in range(len(values)):
        result = [new if v == old else v for v in values[: i + 1]]
    return result
""",
    "dictionaries/has_required_keys": """
def has_required_keys(record, required):
    for key in required:
        if key not in list(record.keys()):
            return False
    return True
""",
    "dictionaries/invert_to_lists": """
def invert_to_lists(mapping):
    return {value: sorted(key for key in mapping if mapping[key] == value) for value in mapping.values()}
""",
    "first_dictionaries/items_sorted_by_value": """
def items_sorted_by_value(dictionary):
    items = list(dictionary.items())
    for i in range(len(items)):
        for j in range(len(items) - 1 - i):
            if items[j][1] > items[j + 1][1]:
                items[j], items[j + 1] = items[j + 1], items[j]
    return items
""",
    "search_and_sort/crossing_cables": """
def crossing_cables(cables):
    ordered = sorted(cables)
    count = 0
    for i in range(len(ordered)):
        for j in range(i):
            if ordered[j][1] > ordered[i][1]:
                count += 1
    return count
""",
    "search_and_sort/fewest_moves_to_gather": """
def fewest_moves_to_gather(seats):
    places = [i - k for k, i in enumerate(i for i, c in enumerate(seats) if c == "x")]
    return min((sum(abs(p - middle) for p in places) for middle in places), default=0)
""",
    "sets_and_tuples/sort_by_second": """
def sort_by_second(pairs):
    result = []
    for pair in pairs:
        place = 0
        for other in result:
            if other[1] <= pair[1]:
                place += 1
        result.insert(place, pair)
    return result
""",
    "dictionaries/monthly_totals": """
def monthly_totals(expenses):
    result = {}
    for day, category, _ in expenses:
        total = 0
        for other_day, other_category, amount in expenses:
            if other_day[:7] == day[:7] and other_category == category:
                total += amount
        result.setdefault(day[:7], {})[category] = total
    return result
""",
    "dictionaries/friend_lists": """
def friend_lists(pairs):
    friends = {}
    for a, b in pairs:
        for name in (a, b):
            mine = {y if x == name else x for x, y in pairs if name in (x, y) and x != y}
            if mine:
                friends[name] = sorted(mine)
    return friends
""",
    "first_lists/numbers_from_to": """
def numbers_from_to(start, end):
    numbers = []
    for n in range(start, end + 1):
        numbers = numbers + [n]
    return numbers
""",
    "first_dictionaries/sum_of_values": """
def sum_of_values(dictionary):
    total = 0
    for key in dictionary:
        for other in dictionary:
            if key == other:
                total += dictionary[other]
    return total
""",
}
