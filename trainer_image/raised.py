"""Sentences of other people's exceptions: what was raised and where in their code, without carets and frames of ours.

An exception is at hand (`of`: a plug-in's) or only what Python printed of it (`read`: a program's); `sentence` tells
both alike: "RuntimeError: no batch (train.py, line 9, in main), caused by KeyError: 'x' (data.py, line 3, in load)".
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from training_common.text import one_line

LONGEST = 300
# Of an exception group, how many of its exceptions are named; of a chain, how many links are followed.
MOST_PARTS, MOST_LINKS = 3, 20


@dataclass(frozen=True)
class Place:
    """A line of code. file: as Python names it; module: where it is known"""

    file: str
    line: int
    function: str = ""
    module: str = ""


@dataclass(frozen=True)
class Raised:
    """An exception. said: "KeyError: 'price'"; places: from the outermost call to where it was raised

    before: the exception that led to it, whether it is its cause or it came while that one was handled
    parts: of an exception group
    """

    said: str
    places: tuple[Place, ...] = ()
    before: Raised | None = None
    caused: bool = True
    parts: tuple[Raised, ...] = ()


Chosen = Callable[[Sequence[Place]], Place | None]


def sentence(raised: Raised, chosen: Chosen) -> str:
    """One line. chosen: of the places of an exception the one to tell, None where none is of interest."""
    first, links = raised, 0
    while first.before is not None and links < MOST_LINKS:
        first, links = first.before, links + 1
    if links and first.said == raised.said:  # another process's, raised again in this one: there it says more
        raised, links = replace(first, parts=raised.parts), 0
    text = _told(raised, chosen)
    if raised.parts:
        named = "; ".join(sentence(part, chosen) for part in raised.parts[:MOST_PARTS])
        text += f": {named}" + ("; …" if len(raised.parts) > MOST_PARTS else "")
    if links:
        nearest = raised
        while nearest.before is not None and nearest.before is not first:
            nearest = nearest.before
        how = "caused by" if nearest.caused else "raised while handling"
        text += f", {how} {_told(first, chosen)}"
    return text


def _told(raised: Raised, chosen: Chosen) -> str:
    text, place = raised.said, chosen(raised.places)
    if place is not None and f", line {place.line})" not in text:  # a SyntaxError says so itself
        within = f", in {place.function}" if place.function and place.function != "<module>" else ""
        text += f" ({Path(place.file).name}, line {place.line}{within})"
    return text + _missing(raised.said)


# Packages that are called otherwise than what is imported of them.
_PACKAGES = {
    "sklearn": "scikit-learn", "cv2": "opencv-python", "PIL": "pillow", "yaml": "PyYAML", "skimage": "scikit-image",
    "bs4": "beautifulsoup4", "dotenv": "python-dotenv", "umap": "umap-learn", "attr": "attrs",
}  # fmt: skip
_NO_MODULE = re.compile(r"ModuleNotFoundError: No module named '([\w.]{1,100})'")


def _missing(said: str) -> str:
    found = _NO_MODULE.match(said)
    if found is None:
        return ""
    module = found[1].partition(".")[0]
    if module in _PACKAGES:
        return f": the image lacks the package {_PACKAGES[module]}"
    return f": no package of the image has the module {module}"


def _short(text: str) -> str:
    text = one_line(text)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def of(error: BaseException, links: int = MOST_LINKS) -> Raised:
    """What an exception says; where its message holds the traceback of another process (a data loader's), that one."""
    try:
        message = str(error)
    except Exception:
        message = "<exception str() failed>"  # as Python prints it
    if (other := read(message.splitlines())) is not None:
        return other
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    parts = error.exceptions[: MOST_PARTS + 1] if isinstance(error, BaseExceptionGroup) and links else ()
    return Raised(
        _short(f"{type(error).__name__}: {message}".rstrip(": ")),
        tuple(
            Place(frame.f_code.co_filename, line, frame.f_code.co_name, str(frame.f_globals.get("__name__", "")))
            for frame, line in traceback.walk_tb(error.__traceback__)
        ),
        of(before, links - 1) if before is not None and links else None,
        error.__cause__ is not None,
        tuple(of(part, links - 1) for part in parts),
    )


# What Python prints, after the marks of an exception group and of torchrun's ranks have been taken away.
_HEADER = re.compile(r"(\s*)(?:Exception Group |Original )?Traceback \(most recent call last\):$")
_FRAME = re.compile(r'\s*File "([^"]{1,500})", line (\d{1,9})(?:,? in (.{1,200}))?$')
_GUTTER = re.compile(r"\s*(?:[|] |[+]-[+]-+ |[+]-+ |[|]$|[+] (?=Exception Group))")
# Another process's line may stand between those of a traceback.
_SAID = re.compile(r"[A-Za-z_][\w.<>]{0,200}(?::\s|:?$)")
_OPENS, _PART = re.compile(r"\s*[+]-[+]-+ 1 -+$"), re.compile(r"\s*[+](?:-[+])?-+ \d{1,6} -+$")
# Notes, the rest of a message of several lines, and the end of a group.
_REST = re.compile(r"\s*(?:[|]|[+]-+$)")
_CAUSE = "The above exception was the direct cause of the following exception:"
_CONTEXT = "During handling of the above exception, another exception occurred:"
_NOT_PYTHONS_END = ("Exception ignored in", "Exception ignored while")
# Pydantic's and Keras', which say what is wrong in the lines after this one.
_ANNOUNCED = re.compile(r"\d validation errors? for \S+\s*$|Exception encountered when calling ")
_SYNTAX = re.compile(r"(?:Syntax|Indentation|Tab)Error: ")
# As the library rich draws it.
_BOX = re.compile(r"╭.{0,200}Traceback \(most recent call last\)")
_BOX_FRAME = re.compile(r"[│|] (\S.{0,500}?):(\d{1,9}) in (\S.{0,200}?)\s*[│|]?$")
# The interpreter itself, with faulthandler.
_FATAL = re.compile(r"Fatal Python error: .+")
# What only says that another process has failed, whose own words stand before.
_OF_ANOTHER = re.compile(r"(?:[\w.]+\.)?(?:CalledProcessError|ChildFailedError|ProcessExitedException)\b")


def read(lines: Sequence[str], within: int = 40) -> Raised | None:
    """The last exception that Python printed, None where there is none among the last `within` lines before the end."""
    found = _blocks(lines) or _headless(lines)
    if not found or len(lines) - found[-1][0] > within:
        return None
    (_, last), *others = reversed(found)
    if last.before is None and _OF_ANOTHER.match(last.said) and others:
        return others[0][1]
    return last


def _blocks(lines: Sequence[str]) -> list[tuple[int, Raised]]:
    """(the line after it, the exception) for each that stands there whole, in order."""
    found: list[tuple[int, Raised]] = []
    at = 0
    while at < len(lines):
        block = _block(lines, at)
        if block is None:
            at += 1
            continue
        end, raised = block
        if not any(lines[at - 1].startswith(words) for words in _NOT_PYTHONS_END if at):
            link = _link(lines, found[-1][0], at) if found else None
            if link is not None:
                _, before = found.pop()
                raised = replace(raised, before=before, caused=link)
            found.append((end, raised))
        at = end
    return found


def _headless(lines: Sequence[str]) -> list[tuple[int, Raised]]:
    """The exception whose header has gone, with the first of its frames: of a thousand calls within each other."""
    begins = next((number for number, line in enumerate(lines[:4]) if _FRAME.match(_bare(line))), None)
    block = None if begins is None else _traceback(lines, begins - 1, 0)
    return [] if block is None else [block]


def _link(lines: Sequence[str], begin: int, end: int) -> bool | None:
    """Whether the exception before `begin` is the cause of that at `end`; None where they have nothing to do."""
    if end - begin > 60:
        return None
    between = {_bare(line).strip() for line in lines[begin:end]}
    return True if _CAUSE in between else False if _CONTEXT in between else None


def _bare(line: str) -> str:
    """Without the bars that an exception group is drawn with."""
    while found := _GUTTER.match(line):
        line = line[found.end() :]
    return line


def _block(lines: Sequence[str], at: int) -> tuple[int, Raised] | None:
    """The exception that begins in this line, and the line after it."""
    line = _bare(lines[at])
    if header := _HEADER.match(line):
        return _traceback(lines, at, len(header[1]))
    if _FATAL.match(line):
        places = [place for each in lines[at + 1 : at + 60] if (place := _place(_FRAME.match(each)))]
        return at + 1, Raised(_short(line), tuple(reversed(places)))
    if _BOX.match(line):
        return _boxed(lines, at)
    if _SYNTAX.match(line):  # of the script itself: nothing was called
        places = [place for each in lines[max(0, at - 4) : at] if (place := _place(_FRAME.match(each)))]
        return at + 1, Raised(_short(line), tuple(places))
    return None


def _place(found: re.Match[str] | None) -> Place | None:
    return None if found is None else Place(found[1], int(found[2]), (found[3] or "").strip())


def _traceback(lines: Sequence[str], at: int, indent: int) -> tuple[int, Raised] | None:
    """lines[at] is its header, with so many spaces before it."""
    places: list[Place] = []
    for number in range(at + 1, len(lines)):
        line = _bare(lines[number])
        if place := _place(_FRAME.match(line)):
            places.append(place)
        elif _HEADER.match(line):
            return None
        elif _SAID.match(line, indent) and not line[:indent].strip():
            said, end = _message(lines, number)
            parts, end = _parts(lines, end)
            return end, Raised(said, tuple(places), parts=tuple(parts))
    return None


def _message(lines: Sequence[str], number: int) -> tuple[str, int]:
    """What was raised: its line, and those after it where this one announces them. And the line after all of them."""
    said, end = [_bare(lines[number])], number + 1
    while end < len(lines) and len(said) < 3 and (said[-1].rstrip().endswith(":") or _ANNOUNCED.search(said[0])):
        if _HEADER.match(_bare(lines[end])):  # another process's traceback is the message: it is read for itself
            break
        said.append(_bare(lines[end]))
        end += 1
    # What is indented belongs to the message, too: the tensors of a state_dict that do not fit, dozens of them.
    while (
        end < len(lines)
        and lines[end][:1] in (" ", "\t")
        and not _GUTTER.match(lines[end])
        and not _HEADER.match(lines[end])
    ):
        end += 1
    return _short(" ".join(line for line in said if not re.fullmatch(r"[=\-\s]*", line))), end


def _parts(lines: Sequence[str], at: int) -> tuple[list[Raised], int]:
    """The exceptions of a group that follow its own line, those of groups within it in their place, and the line after
    them. Nothing where the exception was no group."""
    parts: list[Raised] = []
    opened = at < len(lines) and _OPENS.match(lines[at])
    while opened and at + 1 < len(lines) and _PART.match(lines[at]):
        block = _block(lines, at + 1)
        if block is None:
            said, end = _message(lines, at + 1)
            within, end = _parts(lines, end)
            block = end, Raised(said, parts=tuple(within))
        at, part = block
        parts += part.parts or [part]
        while at < len(lines) and _REST.match(lines[at]):
            at += 1
    return parts, at


def _boxed(lines: Sequence[str], at: int) -> tuple[int, Raised] | None:
    places: list[Place] = []
    for number in range(at + 1, len(lines)):
        if place := _place(_BOX_FRAME.match(lines[number])):
            places.append(place)
        elif lines[number].startswith("╰") and number + 1 < len(lines):
            said, end = _message(lines, number + 1)
            return end, Raised(said, tuple(places))
    return None


def in_package(places: Sequence[Place], package: str) -> list[Place]:
    """Those in a package that is imported here."""

    def within(place: Place) -> bool:
        if place.module:
            return place.module.partition(".")[0] == package
        return f"/{package}/" in place.file or place.file.endswith(f"/{package}.py")

    return [place for place in places if within(place)]


def last_in_package(package: str) -> Chosen:
    """The last place in a package that is imported here."""
    return lambda places: next(reversed(in_package(places, package)), None)


# The interpreter's own, and what starts an installed program.
_STANDARD = re.compile(r"<frozen |(?:^|/)lib(?:64)?/python\d[\d.]*/(?!(?:site|dist)-packages/)|(?:^|/)bin/[^/.]+$")
_INSTALLED = re.compile(r"(.*/(?:site|dist)-packages/[^/]+)")


def last_of_a_program(places: Sequence[Place]) -> Place | None:
    """The last place that is in no library; where the whole program is installed as one, the last in its package."""
    own = [place for place in places if not _STANDARD.search(place.file)]
    script = [place for place in own if not _INSTALLED.match(place.file)]
    if script or not own:
        return next(iter(reversed(script or places)), None)
    package = _folder(own[0])
    return [place for place in own if _folder(place) == package][-1]


def _folder(place: Place) -> str:
    found = _INSTALLED.match(place.file)
    return found[1] if found else ""
