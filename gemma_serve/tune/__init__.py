"""`gemma-serve tune`: a bounded search for a faster profile, each step measured in pairs."""
