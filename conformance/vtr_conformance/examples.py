"""How many inputs are drawn for a property. Apart from the properties, so that a command's help needs no Hypothesis."""

from __future__ import annotations

# Of the text graph and of the second stage. A clip costs some ten times what a sentence costs: video gets a quarter.
EXAMPLES = 20
VIDEO_SHARE = 4
