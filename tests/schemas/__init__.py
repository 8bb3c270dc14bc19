"""The schemas: derived, committed, locked, and true to what an independent reader reads."""
