"""XGBoost with a watch list."""

import sys

import numpy as np
import xgboost as xgb

data, out = sys.argv[1:3]


def matrix(name):
    table = np.loadtxt(f"{data}/{name}.csv", delimiter=",", skiprows=1)
    return xgb.DMatrix(table[:, :-1], label=table[:, -1])


train, validation = matrix("train"), matrix("test")
booster = xgb.train(
    {"objective": "binary:logistic", "max_depth": 3, "nthread": 1},
    train,
    num_boost_round=10,
    evals=[(train, "train"), (validation, "validation")],
)
booster.save_model(f"{out}/model.ubj")
