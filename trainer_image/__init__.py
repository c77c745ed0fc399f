"""The trainer: one training from a dataset's container to a published model, in a pod or on a laptop.

cli ─▶ settings ─▶ run ─▶ progress    may this model be trained? how does it go? how did it end?
                    ├──▶ fencing      one writer for a model
                    ├──▶ sources      config.yaml and the dataset, verified and locked
                    ├──▶ training     the engine and its tasks (contract.py is all that they share with the rest)
                    ├──▶ artifacts    the model, published by one conditional write
                    └──▶ termination  the last words, for the dispatcher's watcher
"""
