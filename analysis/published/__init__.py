"""Others' numbers with their sources: two tables ─▶ curves and comparisons to lay beside one's own, never pooled with
them."""
