"""The Azure Storage Queue: one adapter, and the plain messages, errors and poison entries that others use."""
