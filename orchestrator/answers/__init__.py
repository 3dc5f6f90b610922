"""What the commands print: each function reads, lays out, prints; none decides."""
