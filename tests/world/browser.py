"""A real browser for tests of pages: Debian's Chromium, driven by Playwright. Skipped where there is none.

    def test_x(open_tab):
        tab = open_tab(url, dark=True, width=320)
        tab.page.get_by_role("heading", name="Running").wait_for()
        assert tab.complaints() == []

What a person would suffer from without a test saying so is read from the browser itself: what it prints to its
console, what it asks of other servers, the accessibility tree that a screen reader gets, colours as painted.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

_PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
# Nothing but what a test asks for, and no sandbox where the tests run as root (CI), which Chromium refuses otherwise.
_FLAGS = (
    *("--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
    # A process for the next page and one for a GPU that is not there cost a second of CPU each.
    *("--in-process-gpu", "--renderer-process-limit=1", "--disable-features=SpareRendererForSitePerProcess"),
)
# Roles that a person acts on or reads by name; one without a name is a riddle to a screen reader.
_NAMED = {
    *("button", "link", "textbox", "searchbox", "combobox", "checkbox", "radio", "switch", "slider", "tab"),
    *("progressbar", "meter", "image", "img", "figure", "table", "dialog", "heading", "region"),
}

# WCAG 2.2, 1.4.3: relative luminance of text and of what is painted behind it.
_LOW_CONTRAST = """() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgba = colour => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, below) => [0, 1, 2].map(i => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
  const behind = element => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) {
      layers.push(rgba(getComputedStyle(e).backgroundColor));
      if (layers.at(-1)[3] === 1) break;
    }
    return layers.reverse().reduce((below, top) => over(top, below), rgba('Canvas'));
  };
  const luminance = colour => {
    const linear = c => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4;
    const [r, g, b] = colour.slice(0, 3).map(c => linear(c / 255));
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const found = [];
  for (const element of document.body.querySelectorAll('*')) {
    const text = [...element.childNodes].filter(n => n.nodeType === 3).map(n => n.data).join('').trim();
    const style = getComputedStyle(element);
    if (!text || !element.checkVisibility({visibilityProperty: true})) continue;
    const back = behind(element), ink = rgba(element.namespaceURI.endsWith('svg') ? style.fill : style.color);
    const [dark, light] = [luminance(over(ink, back)), luminance(back)].sort((a, b) => a - b);
    const ratio = (light + .05) / (dark + .05), size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    if (ratio < (large ? 3 : 4.5)) found.push(`${ratio.toFixed(2)}: ${text.slice(0, 60)}`);
  }
  return [...new Set(found)];
}"""

_STICKING_OUT = """() => {
  const edge = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= edge) return [];
  return [...document.body.querySelectorAll('*')].filter(e => e.getBoundingClientRect().right > edge + 1)
    .map(e => `${e.tagName.toLowerCase()}.${e.getAttribute('class') || ''} ends at ` +
      `${Math.round(e.getBoundingClientRect().right)} of ${edge}`).concat(['the page scrolls sideways']);
}"""


class Tab:
    """One page in a browser profile of its own. `page` is Playwright's."""

    def __init__(self, page: Any, url: str) -> None:
        self.page = page
        self.requests: list[str] = []
        self._said: list[str] = []
        page.on("console", lambda m: m.type in ("error", "warning") and self._said.append(f"{m.type}: {m.text}"))
        page.on("pageerror", lambda error: self._said.append(f"uncaught: {error}"))
        page.on("dialog", lambda dialog: (self._said.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: self.requests.append(request.url))
        page.goto(url)
        self._origin = _origin(url)

    def complaints(self) -> list[str]:
        """Errors and warnings on the console, uncaught exceptions, dialogs, requests to another server."""
        return self._said + [f"asked {url}" for url in self.requests if _origin(url) != self._origin]

    def low_contrast(self) -> list[str]:
        """Visible texts that WCAG AA calls too faint, each with its contrast."""
        return list(self.page.evaluate(_LOW_CONTRAST))

    def sticking_out(self) -> list[str]:
        """What makes the page scroll sideways."""
        return list(self.page.evaluate(_STICKING_OUT))

    def nameless(self) -> list[str]:
        """Roles in the accessibility tree that need a name and have none."""
        session = self.page.context.new_cdp_session(self.page)
        nodes = session.send("Accessibility.getFullAXTree")["nodes"]
        session.detach()
        return [
            node["role"]["value"]
            for node in nodes
            if not node.get("ignored")
            and node.get("role", {}).get("value") in _NAMED
            and not str(node.get("name", {}).get("value", "")).strip()
        ]


@contextmanager
def launched() -> Iterator[Any]:
    """A running browser without windows, profile or history. Skips the test where there is no Chromium."""
    program = next(filter(None, map(shutil.which, _PROGRAMS)), None)
    if program is None:
        pytest.skip("no Chromium here; on Debian: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=_FLAGS, chromium_sandbox=os.geteuid() != 0)
        yield browser
        browser.close()


@contextmanager
def tab(browser: Any, url: str, *, dark: bool, width: int, height: int) -> Iterator[Tab]:
    """width, height: of the window in CSS pixels. Animations are off: a test looks at the end of each."""
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if dark else "light",
        reduced_motion="reduce",
        service_workers="block",
    )
    context.set_default_timeout(20_000)
    yield Tab(context.new_page(), url)
    context.close()


def _origin(url: str) -> tuple[str, str]:
    """A `data:` or `blob:` address is no request to anybody."""
    parts = urlsplit(url)
    return (parts.scheme, parts.netloc)
