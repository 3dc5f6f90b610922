"""`bench calibrate`: what the machine itself can make, and how noisy it is."""
