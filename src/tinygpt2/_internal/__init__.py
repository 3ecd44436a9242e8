"""What every part needs and nobody outside: checks, files, signals, devices."""
