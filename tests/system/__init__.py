"""The whole system in one process, small enough to be run many times."""
