"""Tensors in files: safetensors, manifests, Hugging Face's layout."""
