"""What happens on a node: the life of a trial, its service, limits, samples and load."""
