"""Starters of the real servers that tests run against, and other support of tests."""
