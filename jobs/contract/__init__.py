"""What a rank is told and what it leaves: trial and environment go in; steps, report and outcome come out.

The one room that launchers and ranks share. docs/results-format.md says the same for readers of the files.
"""
