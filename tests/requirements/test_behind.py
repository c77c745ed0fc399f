"""`make behind` against a stand-in index."""

from __future__ import annotations

from typing import Any

import pytest

from requirements import behind
from requirements.lock import FILES
from tests.requirements.conftest import Index


def _file(name: str, **said: Any) -> dict[str, Any]:
    return {"filename": name, "yanked": False, **said}


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What the files pin; a test says it."""
    known: dict[str, str] = {}
    monkeypatch.setattr(behind, "pins", lambda file: known if file == "develop" else {})
    assert "develop" in FILES
    return known


def _said(capsys: pytest.CaptureFixture[str], index: Index) -> tuple[int, list[list[str]]]:
    code = behind.main(["--index", index.url])
    return code, [line.split(None, 3) for line in capsys.readouterr().out.splitlines()]


def test_a_newer_release_is_told_and_the_newest_is_not(
    capsys: pytest.CaptureFixture[str], index: Index, pinned: dict[str, str]
) -> None:
    pinned.update({"alpha": "1.9", "beta": "2.0", "Gamma_Ray": "1"})
    index.pages["alpha"] = [_file("alpha-1.9-py3-none-any.whl"), _file("alpha-1.10-py3-none-any.whl")]
    index.pages["beta"] = [_file("beta-1.0-py3-none-any.whl"), _file("beta-2.0-py3-none-any.whl")]
    index.pages["gamma-ray"] = [_file("gamma_ray-1-py3-none-any.whl"), _file("gamma_ray-2-py3-none-any.whl")]
    code, lines = _said(capsys, index)
    assert code == 0
    assert lines[:-1] == [["alpha", "1.9", "1.10"], ["gamma-ray", "1", "2"]]
    assert " ".join(lines[-1]) == "2 of 3 packages are behind, 0 were withdrawn"


@pytest.mark.parametrize(
    "newer",
    [
        _file("alpha-2.0rc1-py3-none-any.whl"),
        _file("alpha-2.0.tar.gz"),
        _file("alpha-2.0-cp311-cp311-win_amd64.whl"),
        _file("alpha-2.0-pp311-pypy311_pp73-manylinux_2_17_x86_64.whl"),
        _file("alpha-2.0-py3-none-any.whl", yanked="broken"),
        _file("alpha-2.0-py3-none-any.whl", **{"requires-python": ">=3.13"}),
        _file("alpha-two-py3-none-any.whl"),
    ],
    ids=lambda file: str(file["filename"]) + (" yanked" if file["yanked"] else ""),
)
def test_a_release_that_cannot_be_taken_is_not_told(
    capsys: pytest.CaptureFixture[str], index: Index, pinned: dict[str, str], newer: dict[str, Any]
) -> None:
    pinned["alpha"] = "1.0"
    index.pages["alpha"] = [_file("alpha-1.0-py3-none-any.whl"), newer]
    code, lines = _said(capsys, index)
    assert (code, len(lines)) == (0, 1)


def test_a_range_that_no_client_reads_any_more_hides_no_release(
    capsys: pytest.CaptureFixture[str], index: Index, pinned: dict[str, str]
) -> None:
    pinned["alpha"] = "1.0"
    newer = _file("alpha-2.0-py3-none-any.whl", **{"requires-python": ">=3.6.*"})
    index.pages["alpha"] = [_file("alpha-1.0-py3-none-any.whl"), newer]
    assert _said(capsys, index)[1][0] == ["alpha", "1.0", "2.0"]


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ([_file("alpha-1.0-py3-none-any.whl", yanked="eats data")], "eats data"),
        ([_file("alpha-1.0-py3-none-any.whl", yanked=True)], "no reason given"),
        ([_file("alpha-1.1-cp311-cp311-win_amd64.whl")], "the index has it no longer"),
    ],
)
def test_a_withdrawn_version_is_told_with_its_reason_and_fails(
    capsys: pytest.CaptureFixture[str],
    index: Index,
    pinned: dict[str, str],
    files: list[dict[str, Any]],
    why: str,
) -> None:
    pinned["alpha"] = "1.0"
    index.pages["alpha"] = files
    code, lines = _said(capsys, index)
    assert code == 1
    assert lines[0] == ["alpha", "1.0", "WITHDRAWN:", why]


def test_one_wheel_that_was_not_withdrawn_is_enough(
    capsys: pytest.CaptureFixture[str], index: Index, pinned: dict[str, str]
) -> None:
    pinned["alpha"] = "1.0"
    bad = _file("alpha-1.0-cp312-cp312-musllinux_1_2_x86_64.whl", yanked="crashes")
    good = _file("alpha-1.0-cp312-cp312-manylinux_2_17_x86_64.whl")
    for files in ([bad, good], [good, bad]):
        index.pages["alpha"] = files
        assert _said(capsys, index)[0] == 0


def test_what_keeps_a_release_out_is_told(
    capsys: pytest.CaptureFixture[str], index: Index, pinned: dict[str, str]
) -> None:
    pinned.update({"pytest": "9.1.1", "triton": "3.7.1"})
    for name, version in pinned.items():
        index.pages[name] = [_file(f"{name}-{version}-py3-none-any.whl"), _file(f"{name}-99-py3-none-any.whl")]
    _, lines = _said(capsys, index)
    assert lines[0][:3] == ["pytest", "9.1.1", "99"]
    assert lines[0][3].startswith("pyproject.toml asks for ")
    assert lines[1] == ["triton", "3.7.1", "99", "torch names its version"]


def test_an_index_that_does_not_answer_is_one_sentence(
    capsys: pytest.CaptureFixture[str], index: Index, pinned: dict[str, str]
) -> None:
    pinned["alpha"] = "1.0"
    for page in (None, "<html>a login page</html>"):
        if page is not None:
            index.pages["alpha"] = page
        assert behind.main(["--index", index.url]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.startswith(f"error: {index.url} does not answer as an index of packages: ")
        assert said.err.count("\n") == 1
