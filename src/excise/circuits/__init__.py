"""Circuits: which heads, MLPs and edges between them carry a task, and how much of it they carry alone."""
