"""Rows by their content: hashes of it, and what an earlier run knew of them."""

from __future__ import annotations
