"""Models: the table of families, loading, folders, formats."""
