"""scikit-learn: reads a folder, fits, writes the model and its figures."""

import argparse
import json
from pathlib import Path

import joblib
import numpy as np
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import accuracy_score

parser = argparse.ArgumentParser()
parser.add_argument("data", type=Path)
parser.add_argument("model", type=Path)
args = parser.parse_args()


def load(name):
    table = np.loadtxt(args.data / name, delimiter=",", skiprows=1)
    return table[:, :-1], table[:, -1]


x, y = load("train.csv")
model = SGDClassifier(loss="log_loss", max_iter=20, tol=None, verbose=1, random_state=0).fit(x, y)
x, y = load("test.csv")
accuracy = accuracy_score(y, model.predict(x))
print(f"test accuracy: {accuracy:.3f}")
joblib.dump(model, args.model)
args.model.with_name("metrics.json").write_text(json.dumps({"accuracy": accuracy}))
