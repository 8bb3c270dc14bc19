"""The tests of the ledger; their names are sentences about its behaviour."""
