"""The command line beyond the plain launch, and what it prints.

May import everything; nothing imports it but `__main__`.
"""
