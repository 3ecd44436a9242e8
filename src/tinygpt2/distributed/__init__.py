"""Several processes that train one model together, through PyTorch's own engines."""
