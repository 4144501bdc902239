"""What this host can do, and what is missing: facts, how they are found, what they come to.

Changes nothing. May import all but `cli`.
"""
