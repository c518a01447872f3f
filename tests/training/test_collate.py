from __future__ import annotations

from engine.training.collate import batches_from, batches_of_epoch

LENGTHS = [(7 * n) % 50 + 5 for n in range(103)]


def test_every_row_is_in_an_epoch_once():
    batches = batches_of_epoch(LENGTHS, 8, seed=1, epoch=0)

    assert sorted(row for batch in batches for row in batch) == list(range(103))
    assert [len(batch) for batch in batches] == [8] * 12 + [7]


def test_epochs_and_seeds_differ():
    first = batches_of_epoch(LENGTHS, 8, seed=1, epoch=0)

    assert batches_of_epoch(LENGTHS, 8, seed=1, epoch=0) == first
    assert batches_of_epoch(LENGTHS, 8, seed=1, epoch=1) != first
    assert batches_of_epoch(LENGTHS, 8, seed=2, epoch=0) != first


def test_rows_of_a_batch_have_similar_lengths():
    batches = batches_of_epoch(LENGTHS, 8, seed=1, epoch=0)[:-1]
    spreads = [max(LENGTHS[r] for r in b) - min(LENGTHS[r] for r in b) for b in batches]

    assert sum(spreads) / len(spreads) < 10


def test_a_resumed_run_sees_the_rows_it_has_not_seen():
    whole = list(batches_from(LENGTHS, 8, seed=1, first_step=0, num_steps=30))

    assert list(batches_from(LENGTHS, 8, seed=1, first_step=17, num_steps=30)) == whole[17:]
