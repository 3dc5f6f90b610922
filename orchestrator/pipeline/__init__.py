"""What a team needs to run Heapgate in its pipeline before a release: files, and what remains."""
