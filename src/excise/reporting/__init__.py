"""From the evaluations of all variants to one table, a verdict and a page."""
