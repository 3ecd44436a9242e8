"""Text generation from logits."""
