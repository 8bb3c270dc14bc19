"""The auditor against ledgers that are right, and against ledgers that are not."""
