"""Read models: pure folds of ledger events, kept in process or as rows of SQL.

The newcomer's index is ``PROJECTIONS`` in ``projections.fold``. It does not stand here, because the
processors import the in-process folds of this package and have no use for SQL.
"""
