"""Tests that each real server which tests rely on works on this machine."""
