"""Configurations and runs beside each other, with intervals and verdicts."""
