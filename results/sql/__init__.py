"""Questions to an archive: one SELECT, sandboxed, over tables and views of its files."""
