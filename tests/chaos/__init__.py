"""Chaos: faults of processes, links and disks at random moments, beside traffic that is judged.

    make chaos                              # two minutes of a random seed
    make chaos SEED=7 SECONDS=30            # an earlier run's faults, in the same order

Traffic may stop while a fault lasts. It may not go in the clear, reach whom policy keeps out, come
out changed, or hang. `callers` makes it, `faults` disturbs it, `run` judges.
"""
