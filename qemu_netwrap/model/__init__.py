"""What the rest speaks of: networks, a run and its NICs, facts about the host, addresses, names.

Pure: no I/O, nothing that remembers. Imports `errors`, `record` and the standard library.
"""
