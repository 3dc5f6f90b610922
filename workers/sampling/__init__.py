"""Samplers: what is read from the service and its machine while a trial runs."""
