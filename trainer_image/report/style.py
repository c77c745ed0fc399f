"""The page's one style sheet, style.css, completed."""

from __future__ import annotations

from importlib.resources import files


def _shades() -> str:
    """Cells of the confusion matrix by share of their row, in tenths: a class each, since the page's security policy
    allows this one style sheet by its hash and no style attribute."""
    return "".join(
        f".{kind}{tenth}{{background:rgba(var(--{name}),{0.05 + 0.045 * tenth:.3f})}}"
        for kind, name in (("hit", "heat"), ("miss", "miss"))
        for tenth in range(1, 11)
    )


STYLE = (files("trainer_image.report") / "style.css").read_text(encoding="utf-8").strip().replace("@HEAT@", _shades())
