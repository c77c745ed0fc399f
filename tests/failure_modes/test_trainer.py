"""Failure modes inside the pod: memory, disk, GPU, a download that lies, a portal that is away or has moved on."""

from __future__ import annotations

from pathlib import Path

import pytest

from portal_client.statuses import ProcessingStatus
from tests.failure_modes.bench import a_world, disturb, live, statuses, templates, undisturbed
from tests.world.simulated.dispatcher import Process
from tests.world.simulated.faults import Fail
from tests.world.training_data import class_table, run_inputs
from trainer_image import errors

S = ProcessingStatus
RUN = "20261123t081500-1a2b3c4d"


def test_f21_a_gpu_that_fails_is_to_be_retried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from trainer_image.engine import training

    def lost(self: object) -> None:
        raise torch.AcceleratorError("CUDA error: device lost (Xid 79)\nmore")

    monkeypatch.setattr(training.Engine, "run", lost)
    with pytest.raises(errors.GpuFault) as told:
        training.train(run_inputs(class_table(tmp_path / "data"), tmp_path / "output"))
    assert told.value.exit_code > 127
    assert "device lost" in told.value.sentence


def test_f21_a_gpu_that_was_given_and_is_gone_is_not_replaced_by_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from trainer_image.host.devices import choose_device

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    assert choose_device("auto").type == "cpu", "a laptop"
    monkeypatch.setenv("NVIDIA_VISIBLE_DEVICES", "GPU-8d2f1e90-0000-0000-0000-000000000000")
    with pytest.raises(errors.GpuFault):
        choose_device("auto")
    monkeypatch.delenv("NVIDIA_VISIBLE_DEVICES")
    with pytest.raises(errors.GpuFault, match="The pod was promised 2 GPUs, but none is visible"):
        choose_device("auto", promised=2)
    assert choose_device("cpu", promised=2).type == "cpu", "whoever says cpu gets it"


@pytest.mark.parametrize(("wanted", "promised"), [("auto", 2), ("cuda", 0), ("cuda:1", 1)])
def test_f71_an_image_that_can_never_see_a_gpu_is_not_tried_again(
    monkeypatch: pytest.MonkeyPatch, wanted: str, promised: int
) -> None:
    import torch

    from trainer_image.host.devices import choose_device

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: False)
    with pytest.raises(errors.ConfigInvalid, match="the image's PyTorch is built without CUDA; use") as told:
        choose_device(wanted, promised)
    assert told.value.exit_code == 78


def test_f27_every_template_asks_for_its_disk_and_limits_it() -> None:
    for folder, template in templates():
        (trainer,) = template["spec"]["template"]["spec"]["containers"]
        for kind in ("requests", "limits"):
            assert "ephemeral-storage" in trainer["resources"][kind], folder


def test_f29_the_dispatcher_reports_it_when_the_portal_is_back() -> None:
    world = a_world("complete-unreported")
    process = Process(world)
    live(world, process, most=1, until_settled=False)
    disturb(world, "portal.get", "before", Fail("503"), times=None)
    live(world, process, most=120, until_settled=False)  # an hour
    assert statuses(world) == ["Created", "Processing"]
    undisturbed(world)
    live(world, process)
    world.check_end()
    assert statuses(world) == ["Created", "Processing", "Completed"]


def test_f63_a_damaged_parquet_file_is_named_and_the_training_keeps_its_last_words(tmp_path: Path) -> None:
    """Every third byte of the footer in turn, which has aborted the library that reads it: here, its process only."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from trainer_image.tasks.base import TaskSettings
    from trainer_image.tasks.tabular.task import Tabular

    path = tmp_path / "train.parquet"
    pq.write_table(pa.table({"a": [1.5, 2.5] * 20, "y": ["yes", "no"] * 20}), path, row_group_size=10)
    sound = path.read_bytes()
    footer = len(sound) - 8 - int.from_bytes(sound[-8:-4], "little")
    told = []
    for place in range(footer, len(sound), 3):
        path.write_bytes(sound[:place] + bytes([sound[place] ^ 0x5A]) + sound[place + 1 :])
        try:
            Tabular().prepare(tmp_path, TaskSettings(target="y"))
        except (errors.DatasetInvalid, errors.LimitExceeded) as error:
            told.append(error.sentence)
    assert len(told) > 100
    assert all("train.parquet" in sentence for sentence in told)
