"""What can be made on the host and undone again: bridges, taps, chains, sysctls, servers.

Undoing stands next to making. May import `linux`, `state` and all above them.
"""
