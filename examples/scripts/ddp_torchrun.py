"""DistributedDataParallel under torchrun, on as many nodes and processes as there are; goes on from its checkpoint."""

import argparse
import os

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--checkpoints", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--epochs", type=int, default=3)
    args = parser.parse_args()
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    table = torch.tensor(np.loadtxt(f"{args.data}/train.csv", delimiter=",", skiprows=1), dtype=torch.float32)
    table = table[rank::size].to(device)
    torch.manual_seed(0)
    model = DistributedDataParallel(torch.nn.Linear(3, 2).to(device))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    start, saved = 0, os.path.join(args.checkpoints, "last.pt")
    if os.path.exists(saved):
        state = torch.load(saved, map_location=device)
        model.module.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["epoch"]
    for epoch in range(start, args.epochs):
        loss = torch.nn.functional.cross_entropy(model(table[:, :-1]), table[:, -1].long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if rank == 0:
            print(f"epoch={epoch + 1} world={size} loss={loss.item():.4f}", flush=True)
            state = {"model": model.module.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch + 1}
            torch.save(state, saved)
    if rank == 0:
        torch.save(model.module.state_dict(), os.path.join(args.out, "model.pt"))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
