"""A real Windows worker on a Linux machine: Windows Python and our dependencies under Wine."""
