"""Logistic regression with NumPy, as a script of somebody who never heard of the trainer."""

import argparse
import os
import pickle

import numpy as np

parser = argparse.ArgumentParser()
parser.add_argument("--data-dir", default="./data")
parser.add_argument("--output-dir", default="./output")
parser.add_argument("--epochs", type=int, default=5)
args = parser.parse_args()

table = np.loadtxt(os.path.join(args.data_dir, "train.csv"), delimiter=",", skiprows=1)
x, y = table[:, :-1], table[:, -1]
w, b = np.zeros(x.shape[1]), 0.0
for epoch in range(args.epochs):
    p = 1 / (1 + np.exp(-(x @ w + b)))
    loss = -np.mean(y * np.log(p + 1e-9) + (1 - y) * np.log(1 - p + 1e-9))
    accuracy = np.mean((p > 0.5) == y)
    w -= 0.5 * x.T @ (p - y) / len(y)
    b -= 0.5 * np.mean(p - y)
    print(f"Epoch {epoch + 1}/{args.epochs} - loss: {loss:.4f} - accuracy: {accuracy:.4f}")

os.makedirs(args.output_dir, exist_ok=True)
with open(os.path.join(args.output_dir, "model.pkl"), "wb") as f:
    pickle.dump({"w": w, "b": b}, f)
