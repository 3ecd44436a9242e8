"""Internal helpers of all packages: checks, files, signals, devices, random numbers."""
