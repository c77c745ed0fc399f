"""Trains one model, whatever the task: the loop with checkpoints, time budget and best weights, on one GPU or several.

`training` is what the run calls; `preparing` comes before the first step, `loop` is the steps, `team` is several GPUs.
"""
