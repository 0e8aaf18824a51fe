from memattn.evaluation.cases import Case, compared, rows_of

CASES = tuple(
    Case(prompt, seed, role, role)
    for seed, (prompt, role) in enumerate(
        [
            ("a", "ordinary"),
            ("b", "calibration"),
            ("c", "memorized"),
            ("d", "other"),
            ("e", "ordinary"),
        ]
    )
)


def test_rows_are_those_of_one_role_in_order():
    assert rows_of(CASES, "ordinary") == [0, 4]
    assert rows_of(CASES, "memorized") == [2]


def test_controls_run_what_is_compared_and_nothing_else():
    assert [case.prompt for case in compared(CASES)] == ["a", "c", "e"]
