"""Trains a small network with DistributedDataParallel, on one node or several, and goes on where it was ended.

There is nothing of the trainer in it: the environment says where everything lies (docs/trainer-authors.md, "Any
program") and who the other processes are (docs/teams.md, "Programs"), as torchrun says it to every script.
"""

from __future__ import annotations

import csv
import json
import os
import signal
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

EPOCHS, BATCH, LEARNING_RATE = 20, 32, 0.05
CHECKPOINT = Path(os.environ["CHECKPOINT_DIR"], "state.pt")


def rows() -> torch.Tensor:
    """Of the files that this node has. With `shares` in config.yaml these are its own; else every node has them all."""
    found = []
    for file in sorted(Path(os.environ["DATASET_DIR"]).glob("train-*.csv")):
        with file.open(newline="") as lines:
            found += [[float(cell) for cell in row] for row in list(csv.reader(lines))[1:]]
    return torch.tensor(found)


def agreed(value: float, how: dist.ReduceOp.RedOpType) -> float:
    """The least or the largest of all processes' values: whoever does a step more than the others waits for ever."""
    said = torch.tensor(float(value))
    dist.all_reduce(said, how)
    return said.item()


def save(model: DistributedDataParallel, optimizer: torch.optim.Optimizer, epoch: int) -> None:
    """Whole or not at all: under a name with a dot, then renamed."""
    part = CHECKPOINT.with_name(".state.pt")
    torch.save({"model": model.module.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch}, part)
    part.replace(CHECKPOINT)


def main() -> None:
    stopped = False

    def stop(number: int, frame: object) -> None:
        nonlocal stopped
        stopped = True

    signal.signal(signal.SIGTERM, stop)
    dist.init_process_group("gloo")  # on GPUs "nccl", and tensors and model on the GPU of LOCAL_RANK
    first = dist.get_rank() == 0
    torch.manual_seed(int(os.environ["SEED"]))
    data = rows()
    model = DistributedDataParallel(nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 1)))
    optimizer = torch.optim.SGD(model.parameters(), LEARNING_RATE)
    begun = 0
    if CHECKPOINT.exists():
        state = torch.load(CHECKPOINT, weights_only=True)
        model.module.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        begun = state["epoch"]
    steps = int(agreed(len(data) // BATCH, dist.ReduceOp.MIN))
    loss = torch.zeros(())
    for epoch in range(begun, EPOCHS):
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(epoch))
        for step in range(steps):
            batch = data[order[step * BATCH : (step + 1) * BATCH]]
            loss = nn.functional.mse_loss(model(batch[:, :2]).squeeze(1), batch[:, 2])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
        if first:
            save(model, optimizer, epoch + 1)
            with Path(os.environ["PROGRESS_FILE"]).open("a") as progress:
                message = f"Epoch {epoch + 1} of {EPOCHS}, loss {loss.item():.3g}"
                print(json.dumps({"message": message, "step": (epoch + 1) * steps, "loss": loss.item()}), file=progress)
        if agreed(stopped, dist.ReduceOp.MAX):
            sys.exit("stopped on request")
    if first:
        output = Path(os.environ["OUTPUT_DIR"])
        torch.save(model.module.state_dict(), output / "model.pt")
        (output / "metrics.json").write_text(json.dumps({"loss": loss.item()}))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
