"""The new model beside the published one, for the page and for the model card."""

from __future__ import annotations

from trainer_image.report.html import Content, Marked, number, paragraph, section, table, words

TITLE = "Beside the published model"


def beside(content: Content) -> str:
    """A part of the page; nothing where no model was published."""
    found = content.get("champion")
    if not found:
        return ""
    shown = ""
    if found["why"] is None:
        shown = table(caption(found), ["", "this model", f"run {found['run_id']}"], rows(content))
    return section(
        "champion", TITLE, paragraph(found["sentence"]), shown, paragraph(what_follows(content), "soft small")
    )


def rows(content: Content) -> list[list[object]]:
    """A line for each figure: its name, the new model's and the published one's, the better headline marked."""
    found, headline = content["champion"], content["headline"]
    lines: list[list[object]] = []
    for name, own in found["metrics"].items():
        cells = [number(own), number(found["champion"].get(name))]
        if name == headline:
            best = 0 if found["better"] else 1
            cells[best] = Marked(cells[best])
        lines.append([words(name), *cells])
    return lines


def caption(found: Content) -> str:
    left = f"; {number(found['left_out'])} that one of them knows are left out" if found["left_out"] else ""
    return f"On {number(found['rows'])} test rows that neither was trained on{left}"


def what_follows(content: Content) -> str:
    """What was asked for, and so becomes of this model."""
    found = content["champion"]
    if content["config"].get("publish") != "if_better":
        return "It takes the published model's place in any case (publish: always)."
    if found["better"] is False:
        return "It is stored and not published (publish: if_better); the published model stays."
    if found["better"] is None:
        return "It is published (publish: if_better): nothing shows that it is worse."
    return "It takes the published model's place (publish: if_better)."
