"""Which wheels `make lock` lists, and what it does about PyTorch's own index."""

from __future__ import annotations

import pytest

from requirements import lock
from tests.requirements.conftest import Index


@pytest.mark.parametrize(
    ("wheel", "expected"),
    [
        ("a-1-py3-none-any.whl", True),
        ("a-1-py2.py3-none-any.whl", True),
        ("a-1-cp311-cp311-manylinux_2_28_x86_64.whl", True),
        ("a-1-cp313-cp313-manylinux2014_aarch64.manylinux_2_17_aarch64.whl", True),
        ("a-1-cp38-abi3-musllinux_1_2_x86_64.whl", True),
        ("a-1-py3-none-macosx_11_0_arm64.whl", True),
        ("a-1-cp312-cp312-macosx_10_13_universal2.whl", True),
        ("a-1-cp310-cp310-manylinux_2_28_x86_64.whl", False),
        ("a-1-cp314-cp314t-manylinux_2_28_x86_64.whl", False),
        ("a-1-cp311-cp311-win_amd64.whl", False),
        ("a-1-cp311-cp311-macosx_11_0_x86_64.whl", False),
        ("a-1-cp311-cp311-manylinux_2_17_s390x.whl", False),
        ("a-1-pp311-pypy311_pp73-manylinux_2_28_x86_64.whl", False),
        ("a-1-py2-none-any.whl", False),
    ],
)
def test_wheels_for_the_supported_pythons_and_platforms_are_listed(wheel: str, expected: bool) -> None:
    assert lock.usable(wheel) is expected


def test_a_package_without_a_wheel_for_a_promised_platform_is_refused() -> None:
    wheels = [
        f"a-1-cp3{minor}-cp3{minor}-manylinux_2_28_{machine}.whl"
        for minor in (11, 12, 13)
        for machine in ("x86_64", "aarch64")
    ]
    assert lock.lacking(wheels, None, ("linux",)) == []
    assert lock.lacking(wheels[1:], None, ("linux",)) == ["Python 3.11 on linux x86_64"]
    assert lock.lacking(wheels, None, ("linux", "darwin")) == [f"Python 3.{m} on darwin arm64" for m in (11, 12, 13)]
    # It is not needed there.
    assert lock.lacking(wheels, "sys_platform == 'linux'", ("linux", "darwin")) == []
    assert lock.lacking(wheels[2:], "python_full_version >= '3.12'", ("linux",)) == []
    assert lock.lacking([], "platform_python_implementation == 'PyPy'", ("linux", "darwin")) == []


def test_the_builds_without_cuda_come_from_pytorchs_own_index(index: Index) -> None:
    def link(name: str, digit: str) -> str:
        return f'<a href="/whl/{name.replace("+", "%2B")}#sha256={digit * 64}" data-core-metadata="x">{name}</a><br/>\n'

    index.pages["torch"] = "<!DOCTYPE html>\n" + "".join(
        [
            link("torch-2.99.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl", "1"),
            link("torch-2.99.0+cpu-cp313-cp313-manylinux_2_28_aarch64.whl", "2"),
            link("torch-2.99.0+cpu-cp312-cp312-win_amd64.whl", "3"),
            link("torch-2.99.0+cpu-cp310-cp310-manylinux_2_28_x86_64.whl", "4"),
            link("torch-2.98.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl", "5"),
            link("torch-2.99.0-cp311-none-macosx_11_0_arm64.whl", "6"),
        ]
    )
    assert lock.cpu_hashes("2.99.0", index.url) == ["1" * 64, "2" * 64]
    with pytest.raises(SystemExit, match=r"has no torch 2\.97\.0\+cpu for Linux"):
        lock.cpu_hashes("2.97.0", index.url)


def test_without_pytorchs_index_known_hashes_stay_and_no_version_goes_without(
    index: Index, capsys: pytest.CaptureFixture[str]
) -> None:
    pinned = lock.pins("torch-cuda")["torch"]
    known = lock.cpu_hashes(pinned, index.url)
    assert len(known) >= 6
    text = (lock.HERE / "torch-cpu.txt").read_text(encoding="utf-8")
    assert text.partition("sys_platform == 'darwin'")[0].count("--hash") == len(known)
    assert "cannot be reached" in capsys.readouterr().err
    with pytest.raises(SystemExit, match=r"the hashes of torch 99\.0\.0\+cpu stand in .* only"):
        lock.cpu_hashes("99.0.0", index.url)
