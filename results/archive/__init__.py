"""The folder of runs on disk: what is there and whole, kept, packed and taken in."""
