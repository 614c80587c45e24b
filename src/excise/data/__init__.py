"""Data: fetch and verify sources; texts, prompts, reference sets."""
