"""How a paper judges maps and scores."""
