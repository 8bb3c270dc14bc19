"""The Avro schemas of everything on the wire and in the ledger, and the lock file of their ids."""
