"""What a single trial can be trusted for: validity, steady state, leaks."""
