"""What the page and the model card say of the new model beside the published one."""

from __future__ import annotations

from typing import Any

import pytest

from tests.trainer_image.report import contents
from tests.trainer_image.report.contents import EVIL
from trainer_image.report.card import card
from trainer_image.report.page import page

RUN = "20261122t081500-1a2b3c4d"


def beside(publish: str, **found: Any) -> dict[str, Any]:
    champion = {
        "run_id": RUN,
        "better": False,
        "why": None,
        "sentence": f"NOT BETTER {EVIL}",
        "rows": 96,
        "left_out": 4,
    }
    champion |= {"metrics": {"accuracy": 0.81}, "champion": {"accuracy": 0.92}}
    config = {"publish": publish}
    return contents.report({"kind": "other"}, {"accuracy": 0.9}, "accuracy", champion=champion | found, config=config)


@pytest.mark.parametrize(
    ("publish", "found", "follows"),
    [
        ("always", {}, "It takes the published model's place in any case (publish: always)."),
        ("if_better", {}, "It is stored and not published (publish: if_better); the published model stays."),
        ("if_better", {"better": True}, "It takes the published model's place (publish: if_better)."),
        ("if_better", {"better": None, "why": EVIL}, "It is published (publish: if_better): nothing shows that it is"),
    ],
)
def test_the_two_are_shown_with_what_becomes_of_them(publish: str, found: dict[str, Any], follows: str) -> None:
    content = beside(publish, **found)
    shown, written = page(content, {}), card(content)
    assert follows.replace("'", "&#x27;") in shown
    assert follows[:30] in written.replace("\\", "")
    for text in (shown, written):
        assert "Beside the published model" in text
        assert "<script>" not in text
        if content["champion"]["why"] is None:
            assert "96 test rows that neither was trained on; 4 that one of them knows are left out" in text
            assert "0.81" in text
            assert "0.92" in text


def test_where_nothing_was_published_nothing_is_said() -> None:
    content = contents.report({"kind": "other"}, {"accuracy": 0.9}, "accuracy")
    assert "published model" not in page(content, {}) + card(content)
