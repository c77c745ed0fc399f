"""The checks on pages see what they are there to see: each is shown a page with just that fault."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.world.browser import Tab

FINE = "<!doctype html><html lang=en><title>t</title><body><h1>Fine</h1><label>Name <input></label>"


def test_each_fault_of_a_page_is_seen_and_a_fine_page_has_none(open_tab: Callable[..., Tab], tmp_path: Path) -> None:
    def look(body: str, **how: object) -> Tab:
        (tmp_path / "page.html").write_text(FINE + body, encoding="utf-8")
        return open_tab((tmp_path / "page.html").as_uri(), **how)

    fine = look("<p style='color:#595959'>grey enough</p>")
    assert (fine.complaints(), fine.low_contrast(), fine.sticking_out(), fine.nameless()) == ([], [], [], [])

    assert look("<p style='color:#999'>faint</p>").low_contrast() == ["2.85: faint"]
    assert look("<p style='width:700px'>wide</p>", width=320).sticking_out()[-1] == "the page scrolls sideways"
    assert look("<button></button><progress></progress>").nameless() == ["button", "progressbar"]
    assert look("<script>console.error('lost')</script>").complaints() == ["error: lost"]
    assert look("<script>throw new Error('broken')</script>").complaints() == ["uncaught: broken"]
    asked = look("<img alt=x src='http://127.0.0.1:9/pixel.png'>").complaints()
    assert "asked http://127.0.0.1:9/pixel.png" in asked
