"""Our configuration file: found, parsed, and what counts of it.

The keys of a network are those of its mode, in `networks`. May import `networks` and all above it.
"""
