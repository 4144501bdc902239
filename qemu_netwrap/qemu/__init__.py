"""The command line of QEMU, read and rewritten as QEMU reads it.

Pure: what QEMU has to be asked, and files, come in as text. May import `model`.
"""
