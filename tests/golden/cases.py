"""All cases by name, in the order they are made."""

import cases_first
import cases_zoo

CASES = {}
for case in cases_first.CASES + cases_zoo.CASES:
    assert case.name not in CASES, case.name
    CASES[case.name] = case
