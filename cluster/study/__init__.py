"""The study file ─▶ checked keys ─▶ the points of its grid."""
