"""Replays of foreign data: mappings, values, the driver, public data sets."""
