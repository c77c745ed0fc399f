"""The objects, and the rules by which they are created, changed and deleted: what the API server and etcd do.

Only writes.py changes the store; validation, defaults, patches and selectors are pure."""
