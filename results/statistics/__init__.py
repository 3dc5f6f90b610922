"""Intervals, tests and change points; no word of archives or tables."""
