"""Other programs: models in their conventions, samplers in theirs, and checkpoints of theirs."""
