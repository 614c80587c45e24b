"""Models, texts and prompts: where they come from, and how they are opened."""
