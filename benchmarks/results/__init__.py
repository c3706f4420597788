"""The results that the project shows: every setup trained, evaluated and written to docs/results, and the tables made.

`make results` runs all of it; `python -m benchmarks.results NAME ...` runs some again and remakes the tables.
"""
