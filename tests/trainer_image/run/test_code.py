"""Which code is part of a run's key."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from trainer_image.config.model_config import parse_config
from trainer_image.config.settings import Settings
from trainer_image.run import code


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The program's, which is the working folder."""
    place = tmp_path / "program"
    place.mkdir()
    monkeypatch.chdir(place)
    for name in ("train.py", "lib/model.py", "run.sh", "lr.yaml", "notes.txt", ".hidden/x.py", "venv/pyvenv.cfg"):
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_text(name)
    (place / "venv" / "lib.py").write_text("somebody else's")
    return place


def of_program(*argv: str, **settings: object) -> set[str]:
    config = parse_config(f"task: command\ncommand: {{argv: {list(argv)}}}".encode())
    return set(code.of(config, Settings(**settings)))  # type: ignore[arg-type]


SOURCES = {"train.py", "lib/model.py", "run.sh"}


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("argv", "files"),
    [
        (["python3", "train.py", "--lr", "0.1"], SOURCES),
        (["torchrun", "--nproc-per-node=2", "train.py", "--config=lr.yaml"], SOURCES | {"lr.yaml"}),
        (["python3", "train.py", "lr.yaml", "notes.txt"], SOURCES | {"lr.yaml"}),
        (["sh", "-c", "cd /tmp && python3 train.py"], SOURCES),
        (["python3", "-m", "train"], SOURCES),
        (["python3", "-m", "lib.model"], {"lib/model.py"}),
        (["torchrun", "-m", "lib.model"], {"lib/model.py"}),
        (["python3", "-m", "torch.distributed.run", "train.py"], SOURCES),
        (["python3", "-m", "json.tool", "lr.yaml"], {"lr.yaml"}),
        (["python3", "lib"], set()),
        (["python3", "-c", "print(1)"], set()),
    ],
)
def test_a_program_s_code_is_what_its_words_name_and_the_sources_beside_it(argv: list[str], files: set[str]) -> None:
    assert of_program(*argv) == files


@pytest.mark.timeout(20)
def test_a_pipe_or_a_socket_that_is_called_like_a_source_is_not_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "pipe.py")
    (folder / "null.py").symlink_to("/dev/null")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("lib/socket.py")
        assert of_program("python3", "train.py", "pipe.py") == SOURCES


def test_a_program_that_is_itself_a_file_is_its_code(folder: Path) -> None:
    (folder / "train").write_bytes(b"\x7fELF")
    (folder / "train").chmod(0o755)
    assert of_program("./train", "--epochs", "3") == {"train"}
    assert of_program(str(folder / "train"), "lr.yaml") == {"train", "lr.yaml"}


def test_copies_of_code_among_models_and_data_are_none_of_the_program_s(folder: Path) -> None:
    for name in ("out", "data"):
        (folder / name).mkdir()
        (folder / name / "train.py").write_text("a copy")
    assert of_program("python3", "train.py", out=folder / "out", data=folder / "data") == SOURCES


@pytest.mark.usefixtures("folder")
def test_where_no_code_is_found_the_image_stands_for_it() -> None:
    assert of_program("python3", "-c", "print(1)", image="registry/program:2") == {"image"}


def test_a_folder_with_too_many_sources_counts_without_those_below_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code, "MOST_SOURCES", 3)
    for number in range(5):
        (folder / "lib" / f"{number}.py").write_text("")
    assert of_program("python3", "train.py") == {"train.py", "run.sh"}


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that a package with a task is installed in."""
    place = tmp_path / "installed"
    info = place / "my_shop-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: my-shop\nVersion: 1.2\nRequires-Dist: torch>=2\nRequires-Dist: my_helper (>=1)\n"
    )
    (info / "entry_points.txt").write_text("[trainer_image.tasks]\nshop = my_shop.task:Prices\n")
    (place / "my_shop").mkdir()
    for name in ("__init__.py", "task.py", "weights.bin"):
        (place / "my_shop" / name).write_text(name)
    helper = place / "my_helper-3.0.dist-info"
    helper.mkdir()
    (helper / "METADATA").write_text("Metadata-Version: 2.1\nName: my_helper\nVersion: 3.0\n")
    monkeypatch.syspath_prepend(str(place))
    return place


def of_plugin() -> dict[str, str]:
    config = parse_config(b"task: custom\ncustom: {entry_point: 'my_shop.task:Prices'}")
    return code.of(config, Settings())


@pytest.mark.usefixtures("plugin")
def test_a_plug_in_s_code_is_its_version_its_files_and_the_versions_of_what_it_needs_beside_the_trainer() -> None:
    found = of_plugin()
    assert set(found) == {
        "trainer", "my-shop", "my_helper", "my_shop/__init__.py", "my_shop/task.py", "my_shop/weights.bin"
    }  # fmt: skip
    assert (found["my-shop"], found["my_helper"]) == ("1.2", "3.0")
    assert "my_shop" not in sys.modules, "nothing is imported"


def test_a_plug_in_that_was_edited_where_it_is_installed_is_other_code(plugin: Path) -> None:
    before = of_plugin()
    (plugin / "my_shop" / "task.py").write_text("another loss")
    assert code.changed(of_plugin(), before) == ["my_shop/task.py"]


def test_a_patch_of_the_trainer_keeps_checkpoints_and_a_version_that_may_train_otherwise_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = parse_config(b"task: tabular\ndata: {target: y}")
    found = {}
    for version in ("0.1.0", "0.1.7", "0.2.0"):
        monkeypatch.setattr(code, "_version", lambda name, version=version: version)
        found[version] = code.of(config, Settings())
    assert found["0.1.0"] == found["0.1.7"] != found["0.2.0"]
