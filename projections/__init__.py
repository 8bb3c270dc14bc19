"""Folds of ledger events into what people and the spot market ask for."""
