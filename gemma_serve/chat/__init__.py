"""From chat messages to the prompt that Gemma was trained on."""
