"""The learning rate over the run."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from accel_trainer.config import ScheduleOptions
from accel_trainer.optim.schedules import Schedule, rate

counts = st.integers(1, 5000)


def test_constant():
    share = rate(ScheduleOptions(), 100, 10)
    assert {share(updates) for updates in range(200)} == {1.0}


def test_halving_is_by_epoch_and_starts_after_the_second():
    share = rate(ScheduleOptions(name="halving"), 60, 10)
    by_epoch = [{share(updates) for updates in range(10 * epoch, 10 * epoch + 10)} for epoch in range(6)]
    assert by_epoch == [{1.0}, {1.0}, {0.5}, {0.25}, {0.125}, {0.0625}]


@given(total=counts, epoch=counts, lowest=st.floats(0, 1))
def test_cosine_falls_from_one_to_the_lowest_share(total, epoch, lowest):
    share = rate(ScheduleOptions(name="cosine", min_ratio=lowest), total, epoch)
    assert share(0) == pytest.approx(1.0)
    assert share(total) == pytest.approx(lowest)
    assert share(total // 2) >= (1 + lowest) / 2 - 1e-9 >= share(total - total // 2) - 2e-9
    shares = [share(updates) for updates in range(0, 2 * total, max(1, total // 50))]
    assert all(later <= earlier + 1e-12 for earlier, later in pairwise(shares))
    assert share(10 * total) == pytest.approx(lowest)


@given(name=st.sampled_from(["constant", "cosine", "halving"]), warmup=st.integers(1, 300), total=counts, epoch=counts)
def test_warmup_rises_by_equal_steps_to_the_full_rate(name, warmup, total, epoch):
    share = rate(ScheduleOptions(name=name, warmup=warmup), total, epoch)
    rising = [share(updates) for updates in range(warmup)]
    steps = [later - earlier for earlier, later in pairwise([0.0, *rising])]
    assert steps == pytest.approx([1 / (warmup + 1)] * warmup)
    assert rising[0] > 0, "a first step at rate 0 would be thrown away"
    if name == "constant" or (name == "cosine" and warmup < total):
        assert share(warmup) == pytest.approx(1.0)


@given(
    name=st.sampled_from(["constant", "cosine", "halving"]),
    warmup=st.integers(0, 300),
    lowest=st.floats(0, 1),
    total=counts,
    epoch=counts,
    updates=st.integers(0, 10**6),
)
def test_a_share_is_a_share(name, warmup, lowest, total, epoch, updates):
    assert 0 <= rate(ScheduleOptions(name=name, warmup=warmup, min_ratio=lowest), total, epoch)(updates) <= 1


def test_every_group_keeps_its_proportion():
    weights = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = torch.optim.SGD([{"params": weights[:1], "lr": 1.0}, {"params": weights[1:], "lr": 0.1}])
    schedule = Schedule(optimizer, lambda updates: 0.5**updates)
    assert [group["lr"] for group in optimizer.param_groups] == [1.0, 0.1]
    for updates in (3, 1, 2):
        schedule.set(updates)
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.5**updates, 0.1 * 0.5**updates])


def test_the_first_step_has_the_warmed_up_rate():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    Schedule(optimizer, rate(ScheduleOptions(warmup=3), 10, 10))
    assert optimizer.param_groups[0]["lr"] == 0.25
