"""Metering: readings, coverage, statements, and the laws of a shard."""
