"""What Triton means: tensors, the contracts of its backends, model repositories."""
