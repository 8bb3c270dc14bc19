"""The L1 port: watcher, sender, embedded chain, and a real node."""
