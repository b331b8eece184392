"""Statistics: pure functions on arrays, no records and no files."""
