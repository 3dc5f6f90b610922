"""A cluster's members: how machines become nodes of a head, stay so, and are known by it."""
