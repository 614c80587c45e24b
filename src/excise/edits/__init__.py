"""Edits: unit lists applied in memory and undone, and saved as a folder."""
