"""Texts as ids of tokens, and explanations of tokens as those of words."""
