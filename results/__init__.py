"""What was measured, kept and answered: archive, SQL views, comparisons."""
