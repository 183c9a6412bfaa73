"""What models are given: images, noise, words, prompts and their tokens."""
