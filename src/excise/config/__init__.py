"""The configuration: one class per section, one field per setting.

A field says its type, bounds, default and meaning once. From it come the check of an experiment's file
(``checks.validated``), the reference page and the JSON schema of the documentation, and the command-line options of
the stages (``options.add_options``) with what the workflow passes to them (``options.options``).

To add a section: write its class in a module of its own, and add a field to ``experiment.Experiment``. To add a kind of
variant: write its class, and add it to ``variants.Variant``. What one section demands of another is in
``checks``.

This module imports nothing, so that a stage that needs one section pays for one section.
"""

BASELINE = "baseline"
"""Name of the variant in which nothing is pruned."""

WINNER = "winner"
"""Name that a control or the export uses for the unit list that wins the evaluation; known when all are judged."""

TUNING = "tuning"
"""Part of the prompts that competing candidates are judged on; also the prefix of their folders."""
