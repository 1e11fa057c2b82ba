"""
Fuzzing: 500 cases in each run of the suite, 20,000 in ``tox -e fuzz``.
"""
