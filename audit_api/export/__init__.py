"""Exports: what leaves with proofs (`bundle`), and what leaves as data (`walk` reads rows, a `Writer` of `formats` shapes them)."""
