"""The simulator, the checker of histories, and the bugs that both must find."""
