"""Floor 0: what is known without looking at anything: QEMU's grammar, the model, resources."""
