"""Floor 4: the command line and what it prints."""
