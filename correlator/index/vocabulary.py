"""The words of an index: how trails stand, and their families. Pure."""

__all__ = ["KINDS", "STATUSES"]

STATUSES = ("ok", "error", "gap", "complete", "incomplete", "compensated", "failed")
"""By rank: a verdict outranks everything, and a newer verdict an older one."""

KINDS = ("transaction", "key", "trace", "stream", "access", "ledger", "incident")
"""Families of trails, by the number that stands for them."""
