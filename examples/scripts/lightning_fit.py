"""PyTorch Lightning: its progress bar, its checkpoints, its own way to go on from the last one."""

import argparse
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, TensorDataset


class Flowers(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(3, 2)

    def step(self, batch, name):
        x, y = batch
        loss = torch.nn.functional.cross_entropy(self.net(x), y)
        self.log(name, loss, prog_bar=True)
        return loss

    def training_step(self, batch, _):
        return self.step(batch, "train_loss")

    def validation_step(self, batch, _):
        self.step(batch, "val_loss")

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.05)


def loader(path):
    table = torch.tensor(np.loadtxt(path, delimiter=",", skiprows=1), dtype=torch.float32)
    return DataLoader(TensorDataset(table[:, :-1], table[:, -1].long()), batch_size=32)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path)
    parser.add_argument("--checkpoints", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--max-epochs", type=int, default=2)
    args = parser.parse_args()
    trainer = pl.Trainer(
        max_epochs=args.max_epochs,
        accelerator="auto",
        logger=False,
        callbacks=[ModelCheckpoint(args.checkpoints, save_last=True)],
    )
    last = args.checkpoints / "last.ckpt"
    trainer.fit(
        Flowers(),
        loader(args.data / "train.csv"),
        loader(args.data / "test.csv"),
        ckpt_path=last if last.exists() else None,
    )
    trainer.save_checkpoint(args.out / "model.ckpt")
