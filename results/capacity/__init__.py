"""How much load a configuration carries: the search for the rate at which it just holds."""
