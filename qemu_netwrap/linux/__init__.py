"""The host: one file for each interface of the kernel or of a service.

What is done here is one step, told by its name; nothing decides. May import `model` and `qemu`.
"""
