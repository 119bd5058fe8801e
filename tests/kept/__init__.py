"""What must not change, as it is today, so that the code may be rebuilt around it.

    ids.json, grids.json   trials as trial.json holds them, under their ids; the points of every shipped study
    results/               of real runs, without what is a machine's own; modelled.py has one more
    numbers/               all that the analysis makes of each: tables, verdicts, comparisons
    words/                 all that is shown of each: report, terminal, figures
    wrong/                 wrong study files, and what is said of them

To renew, and only with a reason: a name of a machine, a path or a wording may change, an id and a number may not.

    python -m tests.kept.renew                       words and pictures: read the diff, commit it with the reason
    python -m tests.kept.renew --numbers-of FOLDER   numbers of a results folder that has none yet
    python -m tests.kept.choose                      ids of trials and grids of studies that are not kept yet
    python -m tests.kept.make FROM NAME              a results folder of a later version, to be kept as well
"""
