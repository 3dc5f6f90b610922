"""What was not measured, told from what was: figures to plan with, never to sign off with."""
