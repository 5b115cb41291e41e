"""Match against brute force: exact scores, ties to the lowest index, bounded, both precisions."""

import numpy as np
import pytest
import torch

from pivot.bench import match as bench_match
from pivot.embeddings import candidates
from pivot.embeddings.match import bf16_gain, match, match_blocks
from pivot.errors import DataError, SettingsError
from pivot.settings import Bench


def unit(rows, dim, seed, spread=0.3):
    """Clustered unit vectors in a cone, as CLIP's are."""
    rng = np.random.default_rng([seed, rows])
    centres = np.random.default_rng(5).standard_normal((40, dim))
    x = centres[rng.integers(0, 40, rows)] + spread * rng.standard_normal((rows, dim)) + centres[0]
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def brute(queries, keys, k):
    """Exact float64 scores rounded to float32, best first, ties by index."""
    scores = (queries.astype(np.float64) @ keys.astype(np.float64).T).astype(np.float32)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(scores, order, axis=1)


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks so small that a few thousand keys take every path."""
    for name, value in {"FEW_KEYS": 16, "STRIP": 32, "KEY_BLOCK": 512, "GROUP": 64}.items():
        monkeypatch.setattr(candidates, name, value)
    monkeypatch.setattr("pivot.embeddings.match.FEW_KEYS", 16)
    monkeypatch.setattr("pivot.embeddings.match.QUERY_BLOCK", 80)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("k", [1, 5, 10])
def test_scores_and_indices_are_exact(small_blocks, precision, k):
    queries, keys = unit(150, 48, 1), unit(3001, 48, 2)
    keys[2000:2100] = keys[:100]  # duplicates in other blocks
    found = match(queries, keys, k=k, precision=precision)
    index, score = brute(queries, keys, k)
    np.testing.assert_array_equal(found.index, index)
    np.testing.assert_array_equal(found.score, score)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_score_recall_at_full_block_sizes(precision):
    queries, keys = unit(300, 64, 3), unit(9000, 64, 4)
    found = match(queries, keys, k=10, precision=precision)
    reference = (torch.from_numpy(queries) @ torch.from_numpy(keys).T).topk(10).values.numpy()
    recall = (found.score >= reference[:, -1:] - 1e-6).mean()
    assert recall == 1.0
    np.testing.assert_allclose(found.score, reference, atol=2e-6)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_threshold_alone_and_with_k(small_blocks, precision):
    queries, keys = unit(100, 32, 5), unit(2500, 32, 6)
    exact = (queries.astype(np.float64) @ keys.T.astype(np.float64)).astype(np.float32)
    threshold = float(np.quantile(exact, 0.995))
    found = match(queries, keys, threshold=threshold, precision=precision)
    row, column = np.nonzero(exact >= np.float32(threshold))
    assert set(zip(found.rows().tolist(), found.index.tolist(), strict=True)) == set(
        zip(row.tolist(), column.tolist(), strict=True)
    )
    np.testing.assert_array_equal(np.diff(found.offsets), np.bincount(row, minlength=100))
    both = match(queries, keys, k=3, threshold=threshold, precision=precision)
    index, score = brute(queries, keys, 3)
    keep = score >= np.float32(threshold)
    np.testing.assert_array_equal(both.index, index[keep])
    np.testing.assert_array_equal(both.score, score[keep])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_many_equal_keys_stay_exact(small_blocks, precision, monkeypatch):
    monkeypatch.setattr(candidates, "PENDING", 5000)  # settles several times
    queries, keys = unit(40, 32, 7), np.tile(unit(1, 32, 8), (4000, 1))
    keys[::7] = unit(572, 32, 9)
    found = match(queries, keys, k=6, precision=precision)
    index, score = brute(queries, keys, 6)
    np.testing.assert_array_equal(found.index, index)
    np.testing.assert_array_equal(found.score, score)


def test_du_golden_pair_for_pair(goldens):
    data = np.load(goldens / "distill" / "clap_curation.npz")
    audio, text = data["curation/audio_emb"], data["curation/text_emb"]
    found = match(audio, text, threshold=float(data["curation/du_threshold"]))
    pairs = set(zip(found.rows().tolist(), found.index.tolist(), strict=True))
    assert pairs == set(map(tuple, data["curation/du_pairs"].tolist()))


def test_k_above_m_gives_all_and_large_k_is_exact(small_blocks):
    queries, keys = unit(5, 16, 1), unit(300, 16, 2)
    assert match(queries, keys, k=1000).index.shape == (5, 300)
    index, score = brute(queries, keys, 200)
    found = match(queries, keys, k=200)
    np.testing.assert_array_equal(found.index, index)
    np.testing.assert_array_equal(found.score, score)


def test_any_source_and_any_blocking_gives_the_same(small_blocks, tmp_path):
    queries, keys = unit(170, 32, 3).astype(np.float16), unit(2000, 32, 4).astype(np.float16)
    np.save(tmp_path / "keys.npy", keys)
    mapped = np.load(tmp_path / "keys.npy", mmap_mode="r")
    first = match(queries, mapped, k=4, precision="bf16")
    second = match(torch.from_numpy(queries), torch.from_numpy(keys).float(), k=4)
    np.testing.assert_array_equal(first.index, second.index)
    np.testing.assert_array_equal(first.score, second.score)
    parts = list(match_blocks(queries, keys, k=4))
    assert [len(part.index) for part in parts] == [80, 80, 10]
    np.testing.assert_array_equal(np.concatenate([p.index for p in parts]), first.index)


def test_reduced_torch_precision_does_not_change_the_answer(small_blocks):
    queries, keys = unit(50, 32, 3), unit(2000, 32, 4)
    expected = match(queries, keys, k=5)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        found = match(queries, keys, k=5, precision="fp32")
    finally:
        torch.set_float32_matmul_precision(before)
    np.testing.assert_array_equal(found.index, expected.index)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_inputs_are_left_alone(small_blocks, precision):
    queries, keys = (torch.from_numpy(unit(n, 32, n)) for n in (60, 900))
    before = queries.clone(), keys.clone()
    match(queries, keys, k=3, precision=precision)
    assert torch.equal(queries, before[0]) and torch.equal(keys, before[1])


def test_vectors_need_not_be_unit(small_blocks):
    queries, keys = 30 * unit(20, 24, 1), unit(1500, 24, 2) * np.linspace(0, 9, 1500)[:, None]
    index, score = brute(queries, keys, 5)
    found = match(queries, keys, k=5, precision="bf16")
    np.testing.assert_array_equal(found.index, index)
    np.testing.assert_allclose(found.score, score, rtol=1e-6)


def test_nothing_above_a_threshold_is_an_empty_answer():
    found = match(unit(3, 8, 1), unit(9, 8, 2), threshold=1.5)
    assert found.index.size == 0 and found.offsets.tolist() == [0, 0, 0, 0]


def test_gain_is_a_number():
    assert bf16_gain() > 0


def _with(value):
    keys = unit(20, 8, 1)
    keys[7, 3] = value
    return keys


@pytest.mark.parametrize(
    "queries, keys, options, error, words",
    [
        (unit(2, 8, 1), _with(np.nan), {"k": 1}, DataError, "keys row 7"),
        (_with(np.inf), unit(2, 8, 1), {"k": 1}, DataError, "queries row 7"),
        (unit(2, 8, 1), unit(2, 9, 1), {"k": 1}, DataError, "8 dimensions"),
        (unit(2, 8, 1), np.empty((0, 8)), {"k": 1}, DataError, "keys are"),
        (np.empty((0, 8)), unit(2, 8, 1), {"k": 1}, DataError, "queries are"),
        (unit(2, 8, 1)[0], unit(2, 8, 1), {"k": 1}, DataError, "needs \\(n, d\\)"),
        (unit(2, 8, 1), unit(2, 8, 1), {}, SettingsError, "needs k"),
        (unit(2, 8, 1), unit(2, 8, 1), {"k": 0}, SettingsError, "k is 0"),
        (unit(2, 8, 1), unit(2, 8, 1), {"threshold": float("nan")}, SettingsError, "finite"),
    ],
)
def test_bad_input_is_named(queries, keys, options, error, words):
    with pytest.raises(error, match=words):
        match(queries, keys, **options)


def test_bench_compares_all_candidates(monkeypatch, capsys):
    monkeypatch.setattr(bench_match, "SIZES", ((32, 3000, 0.0), (16, 5000, 60.0)))
    figures = bench_match.bench(Bench(what="match", seconds=0.01))
    for task, peers in [
        ("top-k", {"torch fp32 blocks + topk", "numpy argpartition", "bare bf16 product"}),
        ("threshold", {"torch fp32 blocks", "torch bf16 blocks", "bare bf16 product"}),
    ]:
        names = {row["name"]: row for row in figures["rows"] if row["task"] == task}
        assert names["match (pivot)"]["recall"] == 1 and names["match (pivot)"]["ratio"] == 1
        assert peers <= set(names) and names["bare bf16 product"]["recall"] is None
        assert names["match (pivot)"]["wrong"] == (0 if task == "threshold" else None)
    said = capsys.readouterr().out
    assert "with --seconds 60 or more" in said and "all above a threshold of 32" in said


def test_bench_has_faiss_where_it_is_installed():
    pytest.importorskip("faiss")
    work = bench_match.Work.make(40, 3000)
    blocks = bench_match._torch(work.queries, work.keys)
    for task in bench_match.TASKS:
        answer = {"faiss": bench_match._faiss(work, task)["faiss Flat"]()}
        answer["torch fp32 blocks + topk"] = blocks
        assert bench_match._recall(work, task, answer)["faiss"] == 1


def test_a_threshold_that_keeps_everything_is_answered_in_short_blocks(small_blocks, monkeypatch):
    monkeypatch.setattr("pivot.embeddings.match.HELD", 10_000)
    queries, keys = unit(90, 16, 1), unit(700, 16, 2)
    for precision in ("fp32", "bf16"):
        parts = list(match_blocks(queries, keys, threshold=-2.0, precision=precision))
        assert max(len(part.index) for part in parts) <= 10_000
        index, score = brute(queries, keys, 700)
        np.testing.assert_array_equal(np.concatenate([p.index for p in parts]), index.ravel())
        np.testing.assert_array_equal(np.concatenate([p.score for p in parts]), score.ravel())
