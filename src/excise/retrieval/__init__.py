"""A smaller encoder that still finds the same documents: importance, selection, repair, judging."""
