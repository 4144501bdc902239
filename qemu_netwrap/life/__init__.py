"""Floor 3: the life of a run: journal, acquire and release, keeper, launch."""
