"""Who asks: bearer tokens, browser sessions, and what both may see. Owns `Session` and the `Door` that lets requests in."""
