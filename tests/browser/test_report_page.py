"""The report in a real browser: Chromium without a window, from a file, with every request watched."""

import re
import shutil
from pathlib import Path

import pytest

from rlaif.report import build_report, compare_report
from rlaif.runs import RunDir
from tests.synthetic_run import HOSTILE, make_run, problems, rollout

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install -r requirements-dev.txt")
CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser):
    """Opens a file in a fresh window; at the end of the test nothing may have been asked for or complained about."""
    opened, troubles = [], []

    def go(path: Path, width: int = 1280, height: int = 900, **context):
        window = browser.new_context(viewport={"width": width, "height": height}, **context)
        page = window.new_page()
        opened.append(window)
        page.on("console", lambda message: troubles.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("request", lambda request: None if request.url.startswith(("file:", "data:")) else troubles.append(request.url))
        page.on("dialog", lambda dialog: troubles.append(f"dialog {dialog.message}"))
        page.goto(path.as_uri())
        return page

    yield go
    for window in opened:
        window.close()
    assert troubles == []


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunDir:
    run = make_run(tmp_path_factory.mktemp("browser") / "demo", episodes=20)
    build_report(run.path)
    return run


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> RunDir:
    """50,000 rollouts over 500 episodes."""
    import random

    rng = random.Random(0)
    run = make_run(tmp_path_factory.mktemp("large") / "large", episodes=1, hostile=False)
    run.rollouts_path.unlink()
    rows = [rollout(rng, 1, *task, 0.5) for task in problems(20) for _ in range(5)]
    run.log_rollouts(rows)
    template = run.rollouts_path.read_bytes()
    run.rollouts_path.write_bytes(b"".join(template.replace(b'"episode": 1,', b'"episode": %d,' % episode) for episode in range(1, 501)))
    metrics = next(run.iter_metrics())
    run.metrics_path.unlink()
    for episode in range(1, 501):
        with open(run.metrics_path, "a") as file:
            file.write(__import__("json").dumps({**metrics, "episode": episode}) + "\n")
    build_report(run.path)
    return run


def until(page, check, timeout_s: float = 5.0) -> None:
    """Waits for `check` to hold. (playwright's own wait_for_function needs eval, which the page's policy forbids.)"""
    for _ in range(int(timeout_s / 0.025)):
        if check():
            return
        page.wait_for_timeout(25)
    raise AssertionError("waited in vain")


def count(page) -> int:
    found = re.match(r"([\d,]+) of", page.locator("#count").inner_text())
    return int(found[1].replace(",", "")) if found else 0


def test_opens_with_everything_in_view(open_page, run):
    page = open_page(run.report_path)
    assert page.title() == "demo · RLAIF report"
    assert page.locator("#charts .chart-card").count() == 9
    titles = page.locator("#charts h3").all_inner_texts()
    assert {"Reward", "Pass rate", "Reward bands", "KL of the update", "Entropy", "Answer length", "Judge's order"} <= set(titles)
    assert page.locator("#charts path[opacity]").count() >= 6, "intervals are drawn"
    assert "held-out problems solved" in page.locator(".lead").inner_text()
    assert page.locator(".alarms li").count() == 1
    assert count(page) == 20 * 32 + 1
    page.locator("#more-box summary").click()
    assert page.locator("#more .chart-card").count() >= 5


def test_one_answer_in_full(open_page, run):
    page = open_page(run.report_path)
    page.select_option("#f-outcome", "failed")
    page.locator(".row").nth(1).click()
    detail = page.locator("#detail")
    text = detail.inner_text()
    for part in (
        "How the reward came together",
        "Tests:",
        "Expected",
        "Got",
        "The judge (embedded",
        "belief that it is right",
        "clarity",
        "Style and speed",
        "This problem, early and late",
    ):
        assert part in text, part
    assert detail.locator(".bars .words").all_inner_texts() == ["Can a colleague follow it at once?"], "a principle's words stand with its score"
    assert detail.locator(".quote").count() == 1
    assert detail.locator(".code .k").count() > 1, "code is highlighted"
    assert detail.locator(".no").count() >= 1
    assert detail.locator(".sides .code").count() == 2
    early, late = (int(re.search(r"episode (\d+)", box.locator("option:checked").inner_text())[1]) for box in detail.locator(".sides select").all())
    assert early < late


def test_the_test_table_tells_expected_from_actual(open_page, run):
    page = open_page(run.report_path)
    page.fill("#f-text", "fibonacci")
    page.select_option("#f-outcome", "failed")
    page.locator(".row").first.click()
    cells = page.locator(".tests tr", has_text="fibonacci(10)").locator("td").all_inner_texts()
    assert cells[0].startswith("✗ fail") and cells[1:] == ["fibonacci(10)", "55", "89"]


def test_filters(open_page, run):
    rows = list(run.iter_rollouts())
    page = open_page(run.report_path)
    page.select_option("#f-outcome", "passed")
    passed = sum(row["outcome"] == "scored" and row["tests"]["passed"] == row["tests"]["total"] for row in rows)
    assert count(page) == passed
    page.select_option("#f-outcome", "")
    page.fill("#f-from", "5")
    page.fill("#f-to", "6")
    assert count(page) == 64
    page.fill("#f-min", "0.6")
    assert count(page) == sum(row["episode"] in (5, 6) and (row["reward"] or 0) >= 0.6 for row in rows)
    page.click("#f-clear")
    assert count(page) == len(rows)
    problem = rows[0]["problem_id"]
    page.locator("#f-problem").select_option(label=page.locator("#f-problem option", has_text=f"{problem} (").first.inner_text())
    assert count(page) == sum(row["problem_id"] == problem for row in rows)
    page.click("#f-clear")
    page.select_option("#f-outcome", "fooled")
    assert count(page) == sum(
        row["outcome"] in ("scored", "policy_failure")
        and row["reward"] is not None
        and row["judge"]["score"] >= 0.5
        and not (row["tests"]["total"] and row["tests"]["passed"] == row["tests"]["total"])
        for row in rows
    )
    page.click("#f-clear")
    page.fill("#f-max", "0.001")
    assert "No answer fits" in page.locator("#list").inner_text()


def test_order_and_search_in_code(open_page, run):
    page = open_page(run.report_path)
    page.select_option("#f-sort", "best")
    best = [float(text) for text in page.locator(".row b").all_inner_texts()]
    assert best == sorted(best, reverse=True) and best[0] > 0.9
    page.fill("#f-text", "stack.pop()")  # only in code, not in a problem's text
    until(page, lambda: count(page) == sum("stack.pop()" in row["code"] for row in run.iter_rollouts()))


def test_a_click_on_a_curve_shows_the_episode(open_page, run):
    page = open_page(run.report_path)
    chart = page.locator("#charts svg").first
    box = chart.bounding_box()
    chart.hover(position={"x": box["width"] * 0.5, "y": 60})
    tip = page.locator("#charts .tip").first.inner_text()
    episode = int(re.match(r"Episode (\d+)", tip)[1])
    assert re.search(r"0\.\d\d \(0\.\d\d to [01]\.\d\d\)", tip)
    chart.click(position={"x": box["width"] * 0.5, "y": 60})
    assert page.input_value("#f-from") == page.input_value("#f-to") == str(episode)
    assert count(page) == 32


def test_keyboard_alone(open_page, run):
    page = open_page(run.report_path)
    page.keyboard.press("g")
    chosen = lambda: int(page.locator(".row.on").get_attribute("data-number"))  # noqa: E731
    first = chosen()
    page.keyboard.press("j")
    page.keyboard.press("j")
    second = chosen()
    page.keyboard.press("k")
    assert len({first, second, chosen()}) == 3
    for _ in range(40):
        page.keyboard.press("ArrowDown")
    assert page.locator(".row.on").is_visible(), "the chosen row is kept in view"
    assert page.locator("#list").get_attribute("aria-activedescendant") == f"row-{chosen()}"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "detail"
    page.keyboard.press("c")
    until(page, lambda: page.locator("#early-late").bounding_box()["y"] < 900)
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == "list"
    page.keyboard.press("/")
    page.keyboard.type("fibonacci")
    until(page, lambda: count(page) < 641)
    assert page.locator(".row").first.inner_text().lower().count("fibonacci")
    page.keyboard.press("Escape")
    assert page.input_value("#f-text") == "" and count(page) == 641
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("#help").is_visible()


def test_every_control_can_be_reached_by_tab(open_page, run):
    page = open_page(run.report_path)
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id"))
    assert {
        "theme",
        "help-open",
        "f-text",
        "f-problem",
        "f-from",
        "f-to",
        "f-outcome",
        "f-min",
        "f-max",
        "f-sort",
        "f-clear",
        "list",
        "detail",
    } <= reached


def test_hostile_code_is_text(open_page, run):
    page = open_page(run.report_path)
    page.fill("#f-text", "owned")
    until(page, lambda: page.locator(".row").count() == 1)
    page.locator(".row").click()
    for summary in page.locator("#detail summary").all():
        summary.click()
    text = page.locator("#detail").inner_text()
    assert text.count(HOSTILE) >= 6, "as text in the prompt, the reasons, the code, the tests, the judge and the linter"
    assert page.title() == "demo · RLAIF report"
    assert page.locator("#detail img, #detail script").count() == 0
    assert page.evaluate("document.querySelectorAll('script:not([type])').length") == 1
    assert "\\u{202e}" in text and "\u202e" not in text and "\x1b" not in text


def test_dark_mode(open_page, run):
    colour = "getComputedStyle(document.body).backgroundColor"
    light, dark = open_page(run.report_path, color_scheme="light"), open_page(run.report_path, color_scheme="dark")
    bright = lambda page: sum(map(int, re.findall(r"\d+", page.evaluate(colour))[:3]))  # noqa: E731
    assert bright(light) > 600 and bright(dark) < 150
    light.keyboard.press("t")
    assert bright(light) < 150
    light.reload()
    assert bright(light) < 150, "the choice is kept"


def test_text_can_be_read_in_both_themes(open_page, run):
    """Contrast of the small texts by WCAG's formula: at least 4.5 for soft text, 3 for the faintest."""
    script = """() => {
      const channel = (v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4);
      const luminance = (name) => {
        const probe = document.body.appendChild(document.createElement('i'));
        probe.style.color = `var(--${name})`;
        const [r, g, b] = getComputedStyle(probe).color.match(/[\\d.]+/g).map(Number).map(channel);
        probe.remove();
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
      const names = ['ink', 'soft', 'faint', 'accent', 'good', 'okay', 'poor', 'kw', 'str', 'num', 'com'];
      return Object.fromEntries(names.map((n) => [n, Math.min(...['card', 'bg'].map((ground) => ratio(luminance(n), luminance(ground))))]));
    }"""
    for scheme in ("light", "dark"):
        ratios = open_page(run.report_path, color_scheme=scheme).evaluate(script)
        low = {name: round(ratio, 2) for name, ratio in ratios.items() if ratio < (3 if name == "faint" else 4)}
        assert low == {}, scheme


def test_on_a_phone(open_page, run):
    page = open_page(run.report_path, width=390, height=844, has_touch=True, is_mobile=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390, "nothing sticks out sideways"
    page.locator("#answers").scroll_into_view_if_needed()
    assert not page.locator("#detail").is_visible()
    page.locator(".row").first.tap()
    assert page.locator("#detail").is_visible() and not page.locator("#list").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.locator(".back").tap()
    assert page.locator("#list").is_visible() and not page.locator("#detail").is_visible()


def test_narrowest_phone(open_page, run):
    page = open_page(run.report_path, width=320, height=568)
    assert page.evaluate("document.documentElement.scrollWidth") <= 320


def test_reload_keeps_what_was_being_read(open_page, run):
    page = open_page(run.report_path)
    page.select_option("#f-outcome", "failed")
    page.fill("#f-to", "10")
    page.locator(".row").nth(5).click()
    number = page.locator(".row.on").get_attribute("data-number")
    page.evaluate("document.getElementById('detail').scrollTop = 150")
    page.reload()
    assert page.locator(".row.on").get_attribute("data-number") == number
    assert page.input_value("#f-outcome") == "failed" and page.input_value("#f-to") == "10"
    assert page.evaluate("document.getElementById('detail').scrollTop") == 150


def test_a_running_run_reloads_by_itself_and_shows_what_is_new(open_page, tmp_path):
    run = make_run(tmp_path / "live", episodes=3, total=6, state="running", hostile=False)
    build_report(run.path)
    context_page = open_page(run.report_path)
    context_page.clock.install()
    context_page.reload()
    context_page.select_option("#f-outcome", "failed")
    before = count(context_page)
    more = make_run(tmp_path / "more", episodes=6, hostile=False)
    run.rollouts_path.write_bytes(more.rollouts_path.read_bytes())
    run.metrics_path.write_bytes(more.metrics_path.read_bytes())
    run.write_status("running", 6, 6)
    build_report(run.path)
    with context_page.expect_navigation(timeout=10_000):
        context_page.clock.fast_forward(60_000)
        context_page.clock.run_for(2_000)
    assert context_page.input_value("#f-outcome") == "failed" and count(context_page) > before
    context_page.click("#refresh")
    assert context_page.locator("#refresh").get_attribute("aria-pressed") == "false"


def test_a_finished_run_does_not_reload(open_page, run):
    page = open_page(run.report_path)
    assert not page.locator("#refresh").is_visible()


def test_fifty_thousand_rollouts_are_quick(open_page, large):
    page = open_page(large.report_path)
    loaded = page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
    assert loaded < 6000, f"{loaded:.0f} ms to open"
    assert count(page) == 50_000
    assert page.locator(".row").count() < 60, "only the rows in view are drawn"
    # times inside the page, the median of a few, on a machine that other tests keep busy
    times = page.evaluate("""() => {
      const time = (act) => {
        const once = (i) => { const start = performance.now(); act(i); document.body.offsetHeight; return performance.now() - start; };
        const runs = [0, 1, 2, 3, 4].map(once);
        return runs.sort((a, b) => a - b)[2];
      };
      const list = document.getElementById('list');
      return {
        scroll: time((i) => { list.scrollTop = 400000 * (i + 1); list.dispatchEvent(new Event('scroll')); }),
        choose: time((i) => list.querySelectorAll('.row')[i].click()),
      };
    }""")
    assert times["scroll"] < 60 and times["choose"] < 250, times
    took = page.evaluate("""async () => {
      const start = performance.now();
      const box = document.getElementById('f-outcome');
      box.value = 'passed';
      box.dispatchEvent(new Event('input', { bubbles: true }));
      while (/^50,000 of/.test(document.getElementById('count').textContent)) await new Promise((r) => setTimeout(r, 5));
      return performance.now() - start;
    }""")
    assert took < 700, f"{took:.0f} ms to filter"
    page.locator("#list").evaluate("list => { list.scrollTop = list.scrollHeight }")
    until(page, lambda: page.locator(".row").last.get_attribute("aria-posinset") == page.locator(".row").last.get_attribute("aria-setsize"))


def test_an_answer_without_code_says_where_it_is(open_page, large, tmp_path):
    page = open_page(build_report(large.path, tmp_path / "small.html", max_bytes=300_000))
    assert count(page) == 50_000
    assert "All 50,000 are listed" in page.locator("#answers").inner_text()
    page.fill("#f-from", "250")
    page.fill("#f-to", "250")
    until(page, lambda: count(page) == 100)
    for row in page.locator(".row").all()[:12]:
        row.click()
        number, text = int(row.get_attribute("data-number")), page.locator("#detail").inner_text()
        if "The code of this answer is not in this file" in text:
            break
    assert f"line {number + 1} of rollouts.jsonl" in text
    assert (large.rollouts_path.read_text().splitlines()[number]).startswith('{"episode": 250,')


def test_comparison(open_page, run, tmp_path):
    other = make_run(tmp_path / "other", episodes=12, seed=5)
    page = open_page(compare_report(run.path, other.path, tmp_path / "compare.html"))
    assert page.locator(".chart-card").count() >= 6
    assert page.locator(".chart-card .legend").first.inner_text().split() == ["demo", "other"]
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
