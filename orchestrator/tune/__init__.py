"""`bench tune`: the settings with the least memory that keep the objectives."""
