"""The portal's status API, our side of the wire; both images use it.

    container name ──model_ids──▶ model id ──client──▶ portal ──answers──▶ ModelStatus
                                                                  └─errors──▶ retry or not: the error answers

Everything but `client` is free of network, clock and environment. Import from the modules: a pure file that
needs only `statuses` does not load the HTTP library.
"""
