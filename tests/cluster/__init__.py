"""`make cluster-test`: the contract suite, the main job and its failures by real means, on any cluster."""
