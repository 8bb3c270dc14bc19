"""Faults injected into the real parts, and what is left of the ledger after each."""
