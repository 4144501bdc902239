"""The test lab: simulated machines, real guests, and the leak detector."""
