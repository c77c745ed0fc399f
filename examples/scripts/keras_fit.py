"""Keras, on whichever backend is installed."""

import argparse
import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np

parser = argparse.ArgumentParser()
parser.add_argument("--data")
parser.add_argument("--model")
args = parser.parse_args()

table = np.loadtxt(os.path.join(args.data, "train.csv"), delimiter=",", skiprows=1)
model = keras.Sequential([keras.layers.Dense(8, activation="relu"), keras.layers.Dense(1, activation="sigmoid")])
model.compile(loss="binary_crossentropy", metrics=["accuracy"])
model.fit(table[:, :-1], table[:, -1], epochs=3, batch_size=16, validation_split=0.2)
model.save(args.model)
