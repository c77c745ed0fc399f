"""report.html: one file, no outside assets, no script; light and dark by the reader's preference."""

from __future__ import annotations

import base64
import hashlib
import logging
import re
from collections.abc import Callable, Mapping
from typing import Any

from trainer_image.report import classification, curves, generic, language, regression, summary
from trainer_image.report.html import text
from trainer_image.report.style import STYLE

log = logging.getLogger(__name__)

Content = dict[str, Any]
# Kind of findings → its sections. Another kind, or one that is not shaped as its name promises, is shown as tables.
KINDS: Mapping[str, Callable[[Content, Mapping[int, bytes]], list[str]]] = {
    "classification": classification.sections,
    "regression": regression.sections,
    "language_model": language.sections,
}
_SECTION = re.compile(r'<section id="([a-z-]+)"[^>]*>\n<h2[^>]*>([^<]*)</h2>')


def page(content: Content, pictures: Mapping[int, bytes]) -> str:
    """The whole page. pictures: PNG files by row of the test split."""
    title = f"Training report: {str(content['task']).replace('_', ' ')}"
    sections = [
        summary.verdict(content),
        summary.data(content),
        summary.figures(content),
        curves.curves(content),
        *_findings(content, pictures),
        summary.times(content),
        summary.training(content),
        summary.surroundings(content),
        summary.use(content),
    ]
    main = "\n".join(part for part in sections if part)
    links = "".join(f'<li><a href="#{anchor}">{heading}</a></li>' for anchor, heading in _headings(main))
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy()}">',
            '<meta name="viewport" content="width=device-width,initial-scale=1">',
            '<meta name="referrer" content="no-referrer"><meta name="color-scheme" content="light dark">',
            f"<title>{text(title)}</title>",
            f"<style>{STYLE}</style></head>",
            '<body><a class="skip" href="#verdict">To the verdict</a><div class="page">',
            summary.heading(content),
            f'<nav aria-labelledby="contents"><h2 id="contents">Contents</h2><ul>{links}</ul></nav>',
            f"<main>\n{main}\n</main>",
            summary.footer(content),
            "</div></body></html>\n",
        ]
    )


def _headings(main: str) -> list[tuple[str, str]]:
    """(anchor, heading) of each section; the verdict's own heading is a sentence, too long for a list."""
    return [(anchor, "Verdict" if anchor == "verdict" else heading) for anchor, heading in _SECTION.findall(main)]


def policy() -> str:
    """Nothing may be loaded or run: this style sheet, by its hash, and pictures that are part of the page."""
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"


def _findings(content: Content, pictures: Mapping[int, bytes]) -> list[str]:
    kind = content["findings"].get("kind")
    render = KINDS.get(kind) if isinstance(kind, str) else None
    if render is not None:
        try:
            return render(content, pictures)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, ZeroDivisionError) as error:
            # A plug-in may call its findings what they are not: the figures are worth more than the picture.
            log.warning("The findings of kind %s are shown as tables: %s", kind, type(error).__name__)
    return generic.sections(content, pictures)
