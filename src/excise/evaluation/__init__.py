"""Judge a model: what it says, how it is scored, how well it predicts text, whether it is still language."""
