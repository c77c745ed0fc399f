"""A program that leaves nothing in OUTPUT_DIR is told where it wrote, early where that can be."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.trainer_image.command.programs import LEAVE, PYTHON, ending, inputs_for, python
from trainer_image import command
from trainer_image.command import elsewhere
from trainer_image.command.elsewhere import Elsewhere, unnamed


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a file of before."""
    place = tmp_path / "work"
    place.mkdir()
    (place / "old.pt").touch()
    monkeypatch.chdir(place)
    return place


def test_a_model_in_the_working_directory_is_named(tmp_path: Path, work: Path) -> None:
    code = "import os; os.makedirs('out/deep'); open('out/deep/model.pt', 'w').write('x' * 2048); open('log', 'w')"
    said = ending(tmp_path, code).sentence
    assert "left nothing in OUTPUT_DIR: there is no model. It wrote out/deep/model.pt (2.0 KiB), log (0 bytes)" in said
    assert f"in its working directory {work}; write to the path that {{OUTPUT_DIR}} in an argument becomes" in said


@pytest.mark.parametrize("name", ["CHECKPOINT_DIR", "DATASET_DIR"])
def test_a_model_in_another_folder_of_ours_is_named(tmp_path: Path, work: Path, name: str) -> None:
    said = ending(tmp_path, f"import os; open(os.environ['{name}'] + '/model.pt', 'w')").sentence
    assert f"It wrote model.pt (0 bytes) in {name}, " in said


def test_the_trainer_s_own_log_is_nothing_that_the_program_wrote(tmp_path: Path, work: Path) -> None:
    code = "import os; open('log', 'w').write('Trainer 0.1.0: RUN_ID=' + os.environ['RUN_ID'])"
    assert ending(tmp_path, code).sentence.endswith("left nothing in OUTPUT_DIR: there is no model")


def test_a_program_that_wrote_nothing_is_told_so(tmp_path: Path, work: Path) -> None:
    assert ending(tmp_path, "").sentence.endswith("left nothing in OUTPUT_DIR: there is no model")


def test_it_is_told_while_the_program_runs(
    tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(elsewhere, "FIRST_LOOK", 0.0)
    monkeypatch.setattr(command, "POLL_SECONDS", 0.02)
    code = (
        "import os, time; open('model.pt', 'w')\n"
        "while not os.path.exists('go on'): time.sleep(0.02)\n" + LEAVE
    )  # fmt: skip

    class Seen(caplog.handler.__class__):  # type: ignore[name-defined,misc]
        def emit(self, record: object) -> None:
            if "OUTPUT_DIR is empty" in record.getMessage():  # type: ignore[attr-defined]
                Path("go on").touch()

    seen = Seen()
    command.log.addHandler(seen)
    try:
        python(tmp_path, code)
    finally:
        command.log.removeHandler(seen)
    assert f"the program wrote model.pt (0 bytes) in its working directory {work}: that is no part" in caplog.text


def test_what_the_trainer_writes_and_what_is_hidden_is_not_the_program_s(tmp_path: Path) -> None:
    mark = tmp_path / ".mark"
    mark.touch()
    time.sleep(0.02)
    found = Elsewhere({"its working directory": tmp_path}, ("run-1", "key"), mark)
    for name in (
        "runs/run-1/metrics.live.jsonl",
        "checkpoints/key/step-1/x",
        ".cache/x",
        "__pycache__/x",
        "a/nohup.out",
    ):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    assert found.found() is None
    assert Elsewhere({"x": tmp_path / "nowhere"}, (), mark).found() is None
    (tmp_path / "runs" / "model.pt").write_text("of run-1")
    assert found.found() == f"runs/model.pt (8 bytes) in its working directory {tmp_path}"


def test_arguments_and_a_script_that_name_no_output_are_remarked_on(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text("torch.save(model, 'model.pt')")
    told = f"Neither command.argv nor {script} names OUTPUT_DIR: what the program does not write into that folder"
    assert told in command.validate_dataset(inputs_for(tmp_path, PYTHON, str(script)))
    assert unnamed(["python3", str(script), "--out", "{OUTPUT_DIR}"]) is None
    script.write_text("os.environ['OUTPUT_DIR']")
    assert unnamed(["python3", str(script)]) is None
    assert unnamed(["python3", "-m", "theirs"]) is None


def test_a_program_may_make_its_folder_anew(tmp_path: Path) -> None:
    code = (
        "import os, shutil; o = os.environ['OUTPUT_DIR']; print('step=1 loss=0.5'); shutil.rmtree(o); os.makedirs(o); "
        + LEAVE
    )
    assert python(tmp_path, code).task == "command"
