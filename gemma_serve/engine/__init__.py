"""Platform, engine arguments, and the one door to vLLM."""
