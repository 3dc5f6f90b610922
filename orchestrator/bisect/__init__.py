"""`bench bisect`: the commit that changed a metric."""
