"""What pprof files say."""
