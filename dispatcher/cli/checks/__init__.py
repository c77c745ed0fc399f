"""`dispatcher check`: what `run` will need, tried one by one; `--in-pod` and `--portal` try more."""
