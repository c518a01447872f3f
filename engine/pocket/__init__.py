"""The embedded default: two rendered worlds and three tiny models with their cards."""
