"""What looks on while a model trains."""
