"""Exports: what leaves the API as a file that stands for itself. Owns the writing of bundles."""
