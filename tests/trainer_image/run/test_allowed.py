"""Which programs the operator allows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.trainer_image.command.programs import PYTHON
from trainer_image import errors
from trainer_image.config.model_config import parse_config
from trainer_image.config.settings import Settings, from_mapping
from trainer_image.run import allowed as rules


@pytest.mark.parametrize(
    ("argv", "allowed", "told"),
    [
        ([PYTHON, "x"], "on", None),
        ([PYTHON, "x"], "true", None),
        ([PYTHON, "train.py", "--lr", "1"], f"{PYTHON} train.py", None),
        ([PYTHON, "my train.py"], f"{PYTHON} 'my train.py'", None),
        ([PYTHON], "off", "task: command is switched off here"),
        ([PYTHON], "OFF", "task: command is switched off here"),
        ([PYTHON, "-c", "evil"], f"{PYTHON} train.py", f"command.argv: must begin with {PYTHON} train.py"),
        ([PYTHON], f"{PYTHON} train.py", f"command.argv: must begin with {PYTHON} train.py"),
        ([PYTHON, "train.py.evil"], f"{PYTHON} train.py", "command.argv: must begin with"),
        (["no-such-program"], "on", "command.argv.0: there is no program no-such-program in this image"),
        ([__file__], "on", f"command.argv.0: {__file__} may not be executed: make it executable (chmod +x), or name"),
        (["pyth\non"], "on", "command.argv.0: there is no program pyth\\non in this image"),
    ],
)
def test_only_what_the_operator_allows_and_the_image_holds_runs(
    argv: list[str], allowed: str, told: str | None
) -> None:
    config = parse_config(json.dumps({"task": "command", "command": {"argv": argv}}).encode())
    settings = Settings(run_id="r", allow_command=allowed)
    if told is None:
        rules.check(config, settings)
        return
    with pytest.raises(errors.ConfigInvalid) as refused:
        rules.check(config, settings)
    assert refused.value.sentence.startswith(f"Invalid configuration: {told}")


def test_nothing_is_allowed_unless_the_operator_says_so(tmp_path: Path) -> None:
    local = {"OUT": str(tmp_path), "CONFIG": __file__}
    assert from_mapping({}, local).allow_command == "off"
    assert from_mapping({"ALLOW_COMMAND": "python3 train.py"}, local).allow_command == "python3 train.py"
    with pytest.raises(errors.UsageError, match="ALLOW_COMMAND"):
        from_mapping({"ALLOW_COMMAND": "python3 'train.py"}, local)
