"""What the guard costs, as ratios guarded : plain measured in the same run.

python -m tests.benchmarks            # prints the table of docs/costs.md
python -m tests.benchmarks --check    # and exits 1 if a row is beyond its bound
python -m tests.benchmarks --quick    # fewer rounds, to see that everything runs
"""
