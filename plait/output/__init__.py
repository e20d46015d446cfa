"""What a merge writes besides weights: config, tokenizer files, card, recipe, lock."""
