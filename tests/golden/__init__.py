"""Ledgers of every released format version, recorded once and never edited."""
