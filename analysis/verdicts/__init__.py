"""Two sides ─▶ a verdict: frameworks on the article's claims, ways to execute, two results folders."""
