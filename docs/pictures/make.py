"""The README's pictures of a real run: its console and its report.

    python docs/pictures/make.py runs/my_run

Writes console.png and report.png beside this file, each a palette PNG of less than 300 KB. The console is the live view itself, fed with
the run's own metrics and answers; the report is report.html in Chromium. Needs playwright, Pillow and a Chromium on the PATH.
"""

from __future__ import annotations

import argparse
import io
import shutil
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright
from rich.console import Console as RichConsole
from rich.terminal_theme import MONOKAI

from rlaif.report import build_report
from rlaif.runs import RunDir
from rlaif.runs.live import LiveView
from rlaif.runs.rows import rollout_from_row

HERE = Path(__file__).parent
LIMIT_BYTES = 300_000
COLUMNS, LINES = 110, 34


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, default=HERE)
    arguments = parser.parse_args()
    chromium = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
    if chromium is None:
        raise SystemExit("No Chromium on the PATH: apt-get install chromium")
    run = RunDir.open(arguments.run)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1000, "height": 700})
        terminal = Path(folder) / "console.html"
        terminal.write_text(console_html(run), encoding="utf-8")
        page.goto(terminal.as_uri())
        save(page.locator("pre").screenshot(), arguments.out / "console.png")
        report = build_report(run.path, Path(folder) / "report.html")
        page.set_viewport_size({"width": 1200, "height": 900})
        page.goto(report.as_uri())
        save(report_picture(page), arguments.out / "report.png")
        browser.close()


def console_html(run: RunDir) -> str:
    """The live view after the run's last episode, as the terminal would show it."""
    problems = run.problems()
    rollouts = [rollout_from_row(row, problems) for row in run.iter_rollouts()]
    metrics = list(run.iter_metrics())
    console = RichConsole(record=True, width=COLUMNS, height=LINES, force_terminal=True, file=io.StringIO(), highlight=False, legacy_windows=False)
    total = int(run.read_json("status.json").get("episodes", len(metrics)))
    view = LiveView(console, total)
    for row in metrics:
        mine = sorted(
            (one for one in rollouts if one.episode == row["episode"] and one.feedback.reward is not None), key=lambda one: one.feedback.reward
        )
        view.episode(row["episode"], total, row, mine[-1] if mine else None, mine[0] if mine else None)
        view.began -= row.get("episode_s") or 0.0  # the picture is taken at once, the run took its time
    view.doing = ""
    console.print(view)
    return (
        console.export_html(theme=MONOKAI, inline_styles=True)
        .replace("<body", "<body style='margin:0;background:#0c0c0c'", 1)
        .replace(
            '<pre style="',
            '<pre style="display:inline-block;padding:18px;margin:0;background:#0c0c0c;color:#d9d9d9;font-size:13px;line-height:1.25;',
            1,
        )
    )


def report_picture(page: Page) -> bytes:
    """The top of the report and the browser of answers, one above the other."""
    top = page.screenshot()
    page.locator("#answers").scroll_into_view_if_needed()
    page.evaluate("document.getElementById('answers').scrollIntoView()")
    page.wait_for_timeout(300)
    bottom = page.screenshot()
    first, second = Image.open(io.BytesIO(top)), Image.open(io.BytesIO(bottom))
    both = Image.new("RGB", (first.width, first.height + second.height + 12), "#888888")
    both.paste(first, (0, 0))
    both.paste(second, (0, first.height + 12))
    stream = io.BytesIO()
    both.save(stream, "PNG")
    return stream.getvalue()


def save(picture: bytes, path: Path) -> None:
    """With as many colours as the size allows."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    for colours in (256, 128, 64, 32, 16):
        image.quantize(colours, dither=Image.Dither.NONE).save(path, optimize=True)
        if path.stat().st_size < LIMIT_BYTES:
            print(f"{path}: {image.width}x{image.height}, {path.stat().st_size:,} bytes")
            return
    raise SystemExit(f"{path} stays over {LIMIT_BYTES:,} bytes")


if __name__ == "__main__":
    main()
