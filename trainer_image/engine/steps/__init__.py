"""One optimizer step and all that it needs: rows in their order, the network's state, its optimizers, its outputs."""
