"""Tests of the recorders for the eventsourcing library."""
