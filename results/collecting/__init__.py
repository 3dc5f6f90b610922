"""The collector: what agents send becomes the files of a trial, each row once."""
