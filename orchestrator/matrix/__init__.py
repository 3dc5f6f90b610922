"""A matrix.yaml, from text to what it means: every mistake told with its place."""
