"""From a matrix to a finished run: the `bench` command and everything it plans and drives."""
