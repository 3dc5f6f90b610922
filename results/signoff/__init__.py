"""The answer before a release: objectives, waivers, the signed record, and its check."""
