"""Metrics against hand-computed cases and the numbers of the papers' own code."""

import numpy as np
import pytest

from pivot import metrics
from pivot.errors import DataError

SCORES = np.array([[0.1, 0.9, 0.5, 0.5], [0.7, 0.7, 0.7, 0.2]])


def test_ranks_take_the_best_relevant_item_and_break_ties_by_index():
    assert metrics.ranks(SCORES, [[3], [2, 3]]).tolist() == [2, 2]
    assert metrics.ranks(SCORES, [{0, 1}, {0}]).tolist() == [0, 0]
    rows = metrics.relevant_ranks(SCORES, [[0, 3, 3], [1]])
    assert [row.tolist() for row in rows] == [[2, 3], [1]]


def test_recall_and_median():
    ranks = [0, 1, 4, 9, 10, 200]
    assert metrics.recall_at(ranks, 1) == pytest.approx(1 / 6)
    assert metrics.recall_at(ranks, 5) == 0.5
    assert metrics.recall_at(ranks, 10) == pytest.approx(4 / 6)
    assert metrics.median_rank(ranks) == 5  # the lower of 4 and 9, counted from 1
    assert metrics.median_rank([2, 0, 7]) == 3


def test_map_at_10_sorts_and_counts_what_is_missing():
    assert metrics.map_at_10([[0]]) == 1
    assert metrics.map_at_10([[4, 3, 2, 1, 0]]) == 1  # LAION-CLAP's own would say more
    # relevant at ranks 1 and 4 (from 1) and one beyond ten: (1/1 + 2/4) / 3
    assert metrics.map_at_10([[30, 3, 0]]) == pytest.approx(0.5)
    assert metrics.map_at_10([[10], [1]]) == pytest.approx(0.25)


def test_precision_at_counts_relevant_candidates():
    assert metrics.precision_at([[0, 3, 4, 5, 90], [1, 7]], 5) == pytest.approx((3 / 5 + 1 / 5) / 2)
    assert metrics.precision_at([[0, 3], [1, 7]], 1) == 0.5


def test_salsa_golden(goldens):
    data = np.load(goldens / "distill" / "salsa.npz")
    sim = data["metrics/sim_caption_by_audio"]
    relevant = [[int(i)] for i in data["metrics/gt_audio_of_caption"]]
    ranks = metrics.ranks(sim, relevant)
    for k in (1, 5, 10):
        assert metrics.recall_at(ranks, k) == pytest.approx(float(data[f"metrics/R{k}"]), abs=1e-6)
    expected = float(data["metrics/mAP10"])
    assert metrics.map_at_10([[r] for r in ranks]) == pytest.approx(expected, abs=1e-6)


def test_average_precision_by_hand_and_with_ties():
    # ranking: yes no yes -> (1/1 + 2/3) / 2
    assert metrics.average_precision([0.9, 0.8, 0.7], [1, 0, 1]) == pytest.approx(5 / 6)
    # one threshold for the tied pair: precision 2/3 at recall 1, and 1 at recall 1/2
    assert metrics.average_precision([0.9, 0.7, 0.7], [1, 0, 1]) == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert metrics.average_precision([0.5, 0.5, 0.5, 0.5], [0, 1, 0, 0]) == pytest.approx(0.25)
    assert metrics.average_precision([0.5, 0.4], [0, 0]) == 0


def test_average_precision_against_a_direct_sum():
    rng = np.random.default_rng([7, 1])
    scores, truth = rng.integers(0, 6, 40) / 5, rng.random(40) < 0.3
    direct, seen = 0.0, 0.0
    for level in sorted(set(scores), reverse=True):
        above = scores >= level
        recall = truth[above].sum() / truth.sum()
        direct += (recall - seen) * truth[above].mean()
        seen = recall
    assert metrics.average_precision(scores, truth) == pytest.approx(direct)


def test_mean_average_precision_counts_a_class_without_items_as_zero():
    scores = np.array([[0.9, 0.1], [0.8, 0.2]])
    assert metrics.mean_average_precision(scores, [[1, 0], [0, 0]]) == pytest.approx(0.5)
    assert metrics.average_precisions(scores, [[1, 0], [0, 0]]).tolist() == [1, 0]


def test_accuracy_and_confusion():
    assert metrics.accuracy([0, 1, 1, 2], [0, 1, 2, 2]) == 0.75
    assert metrics.confusion([0, 1, 1], [0, 1, 2], 3).tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 0]]


def test_va_precision_recall_by_hand():
    sets = ["a", "a", "b", "b", "b", "c"]
    nearest = [0, 2, 2, 3, 0, 5]  # hit, miss, hit, hit, miss, hit
    found = metrics.va_precision_recall(nearest, sets, sets)
    assert found["precision"] == pytest.approx(4 / 6)
    assert found["recall"] == pytest.approx((1 / 2 + 1 / 3 + 1 / 3 + 1) / 6)
    assert found["group_precision"] == pytest.approx((1 / 2 + 2 / 3 + 1) / 3)
    assert found["group_recall"] == pytest.approx((1 / 4 + 2 / 9 + 1) / 3)


def test_pivotability_by_hand():
    images = [[0, 1], [1, 2]]  # two images for each of two sounds
    captions = [[0, 5], [1, 5], [2, 3]]
    gold = {0: [0, 1, 2, 3, 4], 1: [5, 6]}
    # sound 0 reaches 0, 5, 1: two of five; sound 1 reaches 1, 5, 2, 3: one of two
    assert metrics.pivotability(images, captions, gold) == pytest.approx((0.4 + 0.5) / 2)
    assert metrics.pivot_shares(images, captions, gold) == pytest.approx([0.4, 0.5])


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: metrics.ranks([[np.nan, 1]], [[0]]), "NaN"),
        (lambda: metrics.ranks(np.empty((0, 3)), []), "empty"),
        (lambda: metrics.ranks(SCORES, [[0]]), "one relevant set per row"),
        (lambda: metrics.ranks(SCORES, [[0], []]), "query 1 has no relevant"),
        (lambda: metrics.ranks(SCORES, [[0], [4]]), "names item 4"),
        (lambda: metrics.recall_at([], 1), "no ranks"),
        (lambda: metrics.map_at_10([]), "no ranks"),
        (lambda: metrics.precision_at([], 5), "no ranks"),
        (lambda: metrics.accuracy([1], [1, 2]), "predictions"),
        (lambda: metrics.mean_average_precision([[1.0]], [[1, 0]]), "equal tables"),
        (lambda: metrics.pivotability([[0]], [[0]], {}), "gold captions"),
        (lambda: metrics.pivotability([[0]], [[0]], {0: []}), "clip 0"),
        (lambda: metrics.va_precision_recall([0], ["a", "b"], ["a"]), "1 neighbours"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(DataError, match=words):
        call()
