"""Floor 1: decisions. Pure functions from what was typed and what the host is to what to do."""
