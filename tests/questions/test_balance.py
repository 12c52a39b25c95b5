"""The report: counts, evenness, and what a wording gives away."""

from batcli.questions.balance import BalanceCounter


def test_a_wording_that_gives_the_answer_away_is_seen():
    balance = BalanceCounter()
    for i in range(100):
        answer = "Yes" if i % 2 else "No"
        balance.add("MIXUP_DIRECTION", f"Surely X is left? {answer}", {"answer": answer})
        balance.add("MIXUP_DISTANCE_BOTH", f"Is X far? {i // 2 % 2}", {"answer": answer})
    leak, fair = balance.report().parts
    assert (leak.most_frequent, leak.ceiling) == (0.5, 1.0)
    assert (fair.most_frequent, fair.ceiling) == (0.5, 0.5)


def test_the_table_fits_a_terminal():
    balance = BalanceCounter()
    balance.scenes.update({1: 1_000_000, 2: 2_000_000})
    for kind in ("MIXUP_SINGLE_CLASSIFICATION", "DOA"):
        for i in range(12_345):
            balance.add(kind, "?", {"labels": f"accelerating, revving, vroom {i}", "distance": "10m"})
    lines = balance.report().lines()
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("24,690 questions, 3,000,000 scenes")
    assert "12,345" in "".join(lines)
    assert lines[2].startswith("DOA")  # in the published order


def test_an_empty_balance_has_a_report():
    report = BalanceCounter().report()
    assert report.counts == {}
    assert report.parts == ()
    assert report.lines()
