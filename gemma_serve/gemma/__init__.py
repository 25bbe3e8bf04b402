"""What is true of Gemma itself: no vLLM, no HTTP."""
