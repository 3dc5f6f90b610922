"""Go releases, and programs built with them: each known by what it was made of."""
