"""The read models: equal to a plain fold on both databases, wherever they are cut."""
