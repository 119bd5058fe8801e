"""A study's results folder: taken by one driver at a time, and grown by what was measured on other machines."""
