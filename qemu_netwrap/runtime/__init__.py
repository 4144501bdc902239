"""A run, from the typed command line until nothing is left of it.

Launcher, keeper, waiter; networks that runs share; journals. May import all but `doctor`, `cli`.
"""
