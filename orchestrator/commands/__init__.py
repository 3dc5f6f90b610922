"""The commands of `bench`, by what they are about: parse, call, print. No logic.

Nothing heavy is imported at the top, so that `bench --help` answers at once.
"""
