"""Recovery: snapshots, restarts, and who works a shard."""
