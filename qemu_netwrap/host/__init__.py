"""Floor 2: effectors. Each module touches one surface of the host and nothing else."""
