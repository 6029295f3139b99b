import dataclasses
import math

import pytest

from prunus import records
from prunus.report import headline, words
from prunus.report.comparison import compare, goals, law
from prunus.report.facts import gather


def by_quantity(facts):
    return {row.quantity: row for row in reversed(compare(facts))}


def test_the_headline_numbers_are_those_of_the_evaluations(make, tmp_path):
    rows = by_quantity(gather(make.complete_run(tmp_path)))
    wide, narrow = make.evaluation_record("wide"), make.evaluation_record("narrow")
    assert (rows["metric"].wide, rows["metric"].narrow) == (wide.metrics["miou"], narrow.metrics["miou"])
    assert (rows["macs"].wide, rows["macs"].narrow) == (wide.macs, narrow.macs)
    assert (rows["params"].wide, rows["params"].narrow) == (wide.params, narrow.params)
    assert (rows["latency"].wide, rows["latency"].narrow) == (21.34, 9.871)
    assert rows["training_seconds"].ratio == pytest.approx(124.8 / 161.2)


def test_without_a_wide_training_the_network_as_built_is_the_measure(make):
    facts = gather([make.run_record(), *make.shrink_records(), make.evaluation_record("narrow")])
    rows = by_quantity(facts)
    assert rows["macs"].wide == make.shrink_records()[0].macs_before
    assert "not trained" in rows["macs"].remark
    assert rows["metric"].wide is None and rows["metric"].ratio is None
    assert "no accuracy to compare" in headline.sentences(compare(facts), facts)[-1]


def test_before_an_evaluation_the_last_epoch_stands_in_and_says_so(make):
    facts = gather([make.epoch_record("narrow", epoch) for epoch in (1, 2, 3)])
    row = by_quantity(facts)["metric"]
    assert row.narrow == make.epoch_record("narrow", 3).metrics["miou"]
    assert "last epoch" in row.remark


def test_both_are_compared_on_a_split_that_both_have(make):
    validation = [
        dataclasses.replace(make.evaluation_record(model), split="validation", images=50)
        for model in ("wide", "narrow")
    ]
    facts = gather([*validation, make.evaluation_record("narrow")])
    assert facts.split == "validation"
    assert set(facts.evaluations) == {"wide", "narrow"}


def test_what_a_resumed_run_writes_again_replaces_what_was_there(make):
    again = dataclasses.replace(make.epoch_record("narrow", 2), loss=0.125)
    facts = gather([*(make.epoch_record("narrow", epoch) for epoch in (1, 2, 3)), again])
    assert [epoch.epoch for epoch in facts.epochs["narrow"]] == [1, 2, 3]
    assert facts.epochs["narrow"][1].loss == 0.125


def test_networks_are_compared_only_under_equal_conditions(make):
    other = dataclasses.replace(make.latency_record("narrow", "openvino", 5.0), threads=1)
    facts = gather([make.latency_record("wide", "openvino", 17.0), other])
    rows = [row for row in compare(facts) if row.quantity == "latency"]
    assert [(row.wide, row.narrow) for row in rows] == [(17.0, None), (None, 5.0)]
    assert [row.label for row in rows] == ["OpenVINO, 2 threads", "OpenVINO, 1 thread"]


@pytest.mark.parametrize(
    ("budget", "limit", "met"),
    [
        ({"macs": 0.4}, 0.4 * 1_204_331_520, True),
        ({"macs": 0.3}, 0.3 * 1_204_331_520, False),
        ({"macs": 500_000_000, "params": None}, 500_000_000, True),
        ({"class_path": "prunus.Budget", "init_args": {"params": 694_021}}, 694_021, False),
        ({"macs": None, "latency": 0.5, "latency_ms": None}, 0.5 * 21.34, True),  # of the first backend
        ({"latency": 0.4}, 0.4 * 21.34, False),
        ({"latency": 1.0}, 21.34, True),
        ({"latency": None, "latency_ms": 0.9}, 0.9, False),
        ({"latency_ms": 12}, 12, True),
    ],
)
def test_the_budget_is_met_or_missed(make, tmp_path, budget, limit, met):
    found = [*make.complete_run(tmp_path)[1:], make.run_record(recipe={"budget": budget})]
    (goal,) = goals(gather(found))
    assert goal.limit == pytest.approx(limit)
    assert goal.met is met
    check = headline.checks(gather(found))[0]
    assert check.passed is met
    assert check.text.startswith("met" if met else "missed")


def test_a_budget_of_a_stage_alone_is_named(make):
    recipe = {"shrink": None, "then": [{"name": "shrunk", "shrink": {"budget": {"macs": 0.6}}}, {"name": "last"}]}
    check = headline.checks(gather([make.run_record(recipe=recipe)]))[0]
    assert (check.passed, check.text) == (None, "only the stage shrunk had one")


def test_a_budget_is_found_wherever_the_recipe_has_it(make):
    recipe = {"train": {"epochs": 3, "shrink": {"budget": {"params": 700_000}}}}
    assert goals(gather([make.run_record(recipe=recipe), make.evaluation_record("narrow")]))[0].met is True


def test_a_relative_budget_without_a_wide_network_is_not_judged(make):
    facts = gather([make.run_record(), make.evaluation_record("narrow")])
    assert goals(facts)[0].met is None


def test_one_failed_parity_fails_the_check(make):
    failed = make.parity_record("narrow", "openvino", passed=False, max_rel_diff=0.2)
    facts = gather([make.parity_record("wide", "openvino"), failed])
    check = next(check for check in headline.checks(facts) if check.name == "Parity")
    assert check.passed is False
    assert "narrow on OpenVINO" in check.text


@pytest.mark.parametrize(("change", "passed"), [(4e-7, True), (3e-4, False), (math.nan, False)])
def test_the_law_of_removal_is_judged_by_the_worst_cut(make, change, passed):
    cuts = [dataclasses.replace(cut, max_rel_diff=1e-8) for cut in make.shrink_records()]
    cuts[1] = dataclasses.replace(cuts[1], max_rel_diff=change)
    facts = gather(cuts)
    assert law(facts) == pytest.approx(change, nan_ok=True)
    assert headline.checks(facts)[-1].passed is passed


def test_a_narrow_network_that_is_slower_is_called_slower(make):
    found: list[records.Record] = [make.latency_record("wide", "torch", 10.0)]
    facts = gather([*found, make.latency_record("narrow", "torch", 12.5)])
    assert "1.25 times as long" in headline.sentences(compare(facts), facts)[0]


def test_a_gate_that_passes_leaves_slices_in_doubt(make):
    gate, *others = [each for each in make.gate_records() if getattr(each, "verdict", "") != "fell"]
    text = next(
        check.text
        for check in headline.checks(gather([make.run_record(), dataclasses.replace(gate, passed=True), *others]))
        if check.name == "Gate"
    )
    expected = "passed: none of 2 slices dropped by more than 0.5 points beyond doubt (1 in doubt)"
    assert text.replace(words.GAP, " ") == expected
