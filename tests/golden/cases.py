"""All cases by name, in the order they are made."""

import cases_first

CASES = {}
for case in cases_first.CASES:
    assert case.name not in CASES, case.name
    CASES[case.name] = case
