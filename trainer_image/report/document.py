"""The frame of a report: head, security policy, contents, sections."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from importlib.resources import files

from trainer_image.report.html import text

# Cells of the confusion matrix by share of their row, in tenths: a class each, since the page's security policy allows
# this one style sheet by its hash and no style attribute.
_SHADES = "".join(
    f".{kind}{tenth}{{background:rgba(var(--{name}),{0.05 + 0.045 * tenth:.3f})}}"
    for kind, name in (("hit", "heat"), ("miss", "miss"))
    for tenth in range(1, 11)
)
STYLE = (files("trainer_image.report") / "style.css").read_text(encoding="utf-8").strip().replace("@HEAT@", _SHADES)
_SECTION = re.compile(r'<section id="([a-z-]+)"[^>]*>\n<h2[^>]*>([^<]*)</h2>')


def document(title: str, head: str, sections: Sequence[str], foot: str) -> str:
    """The whole page. head, sections, foot: HTML; a section without content is ""."""
    main = "\n".join(part for part in sections if part)
    # The verdict's own heading is a sentence, too long for a list.
    headings = [(a, "Verdict" if a == "verdict" else heading) for a, heading in _SECTION.findall(main)]
    links = "".join(f'<li><a href="#{anchor}">{heading}</a></li>' for anchor, heading in headings)
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy()}">',
            '<meta name="viewport" content="width=device-width,initial-scale=1">',
            '<meta name="referrer" content="no-referrer"><meta name="color-scheme" content="light dark">',
            f"<title>{text(title)}</title>",
            f"<style>{STYLE}</style></head>",
            f'<body><a class="skip" href="#{headings[0][0]}">To the content</a><div class="page">',
            head,
            f'<nav aria-labelledby="contents"><h2 id="contents">Contents</h2><ul>{links}</ul></nav>',
            f"<main>\n{main}\n</main>",
            foot,
            "</div></body></html>\n",
        ]
    )


def policy() -> str:
    """Nothing may be loaded or run: this style sheet, by its hash, and pictures that are part of the page."""
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
