"""Drills: the long versions of what the system tests show in short. `python -m drills` prints their tables as Markdown."""
