"""Random draws are keyed by (seed, step, micro-batch, process): never repeated, never shifted by anything else."""

from __future__ import annotations

import itertools

import torch
from torch import nn

from accel_trainer.data.permutation import key
from tests.helpers import training


class Drawing(nn.Module):
    """Notes one random number for each pass in training."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(training.HORIZON, training.TARGETS))
        self.drawn: list[float] = []

    def forward(self, past_values: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.drawn.append(torch.rand(1).item())
        else:
            torch.rand(7)  # an evaluation that draws must not shift what training draws
        return self.weight.expand(len(past_values), -1, -1)


def drawn(seed: int = 0, **options: object) -> list[float]:
    model = Drawing()
    series = training.series(None)
    made = training.trainer(
        model,
        training.windows(series),
        training.windows(series, training.VALIDATION),
        training__max_steps=3,
        training__micro_batch_size=4,
        run__seed=seed,
        **options,
    )
    made.fit()
    return model.drawn


def test_every_pass_of_every_step_draws_its_own_numbers() -> None:
    numbers = drawn()
    assert len(numbers) == 3 * 4
    assert len(set(numbers)) == len(numbers)
    assert not set(numbers) & set(drawn(seed=1))


def test_evaluations_do_not_shift_the_draws() -> None:
    assert drawn() == drawn(evaluation__every_steps=1)


def test_keys_of_processes_differ() -> None:
    keys = {key(*parts) for parts in itertools.product(range(3), range(20), range(5), range(8))}
    assert len(keys) == 3 * 20 * 5 * 8
