"""Puts a page together: template, style, script and data in one file that needs nothing else and lets nothing else in.

Everything a model wrote reaches the page in one of two ways: through the template with autoescape, or as JSON in a data block in which `<` is
escaped, which the script only ever sets as text. The page's content security policy allows the one script it was made with, by its hash, so that
even an escape that failed would not run, and no request leaves the page.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from rlaif.runs.metrics import format_seconds, format_value
from rlaif.runs.text import printable

ASSETS = Path(__file__).parent / "assets"
MAX_COLUMNS = 4000


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(ASSETS), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_visible
    )
    environment.filters["percent"] = lambda share: f"{100 * share:.1f}%"
    environment.filters["signed"] = lambda value: f"{value:+.1f}"
    environment.filters["seconds"] = format_seconds
    environment.globals["format_value"] = format_value
    return environment


def _visible(value: Any) -> Any:
    """Characters that hide or reorder text by their code points, as the script's own `visible` does it; Markup is ours and stays."""
    return printable(value, max_columns=MAX_COLUMNS) if type(value) is str else value


@cache
def _script(names: tuple[str, ...]) -> str:
    parts = [(ASSETS / name).read_text(encoding="utf-8") for name in names]
    return "(() => {\n'use strict';\n" + "\n".join(parts) + "\n})();"


def data_block(value: Any, identifier: str, kind: str = "data") -> Markup:
    """A JSON data block. With `<` escaped, nothing in it can end the block or open a comment."""
    return raw_data_block(json.dumps(value, separators=(",", ":"), allow_nan=False), identifier, kind)


def raw_data_block(text: str, identifier: str, kind: str = "data") -> Markup:
    """The same for JSON that is text already; `<` cannot stand outside a string there, so that it can be escaped in the text."""
    return Markup(f'<script type="application/json" class="{kind}" id="{identifier}">{text.replace("<", chr(92) + "u003c")}</script>')


def render(template: str, scripts: tuple[str, ...], context: Mapping[str, Any], blocks: Iterable[Markup]) -> Iterator[str]:
    """The page in pieces. `blocks` come before the script, so that the script finds them."""
    script = _script(scripts)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    style = (ASSETS / "report.css").read_text(encoding="utf-8")
    page = _environment().get_template(template).render({**context, "csp": policy, "style": Markup(style), "mark": MARK})
    head, _, tail = page.partition(MARK)
    yield head
    for block in blocks:
        yield str(block)
        yield "\n"
    yield f"<script>{script}</script>"
    yield tail


MARK = Markup("<!-- data and script -->")
