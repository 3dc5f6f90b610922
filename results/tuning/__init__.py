"""Which GOGC and GOMEMLIMIT to run a service with: the search, its prior, its answer."""
