"""Starting a service inside its limits, watching it and ending it: one file a system."""
