"""Batches are gathered: whatever the table, each equals what slicing by hand gives."""

from __future__ import annotations

from dataclasses import dataclass

import datasets
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from accel_trainer.data.samples import DatasetSamples, Samples
from accel_trainer.data.split import Rows
from accel_trainer.data.windows import Series, Windows


@dataclass
class Case:
    """A table as arrays, and the windows cut from it."""

    values: np.ndarray
    observed: np.ndarray | None
    features: np.ndarray | None
    targets: int
    rows: Rows
    context: int
    horizon: int
    stride: int

    def windows(self) -> Windows:
        observed = None if self.observed is None else torch.from_numpy(self.observed)
        features = None if self.features is None else torch.from_numpy(self.features)
        series = Series(torch.from_numpy(self.values), observed, features, self.targets)
        return Windows(series, self.rows, self.context, self.horizon, self.stride)

    def starts(self) -> list[int]:
        length = self.context + self.horizon
        return [row for row in range(self.rows.begin, self.rows.end, self.stride) if row + length <= self.rows.end]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    context, horizon = draw(st.integers(1, 9)), draw(st.integers(1, 6))
    begin, after = draw(st.integers(0, 5)), draw(st.integers(0, 5))
    own = context + horizon + draw(st.integers(0, 25))
    time, channels = begin + own + after, draw(st.integers(1, 5))
    generator = np.random.default_rng(draw(st.integers(0, 10**6)))
    observed = (
        generator.random((time, channels)) < draw(st.sampled_from([0.0, 0.3, 0.9])) if draw(st.booleans()) else None
    )
    values = generator.normal(size=(time, channels)).astype(np.float32)
    features = generator.normal(size=(time, 3)).astype(np.float32) if draw(st.booleans()) else None
    targets, stride = draw(st.integers(1, channels)), draw(st.integers(1, 7))
    return Case(values, observed, features, targets, Rows(begin, begin + own), context, horizon, stride)


@given(case=cases(), data=st.data())
@settings(deadline=None)
def test_a_batch_is_what_slicing_by_hand_gives(case, data):
    windows, starts = case.windows(), case.starts()
    assert len(windows) == len(starts)
    indices = np.array(data.draw(st.lists(st.integers(0, len(starts) - 1), min_size=1, max_size=7)))
    assert windows.starts(indices).tolist() == [starts[index] for index in indices]
    batch = windows.batch(indices)
    expected: dict[str, list[np.ndarray]] = {name: [] for name in batch}
    for index in indices:
        past = slice(starts[index], starts[index] + case.context)
        future = slice(past.stop, past.stop + case.horizon)
        own = slice(None, case.targets)
        assert future.stop <= case.rows.end
        for name, table, times, columns in (
            ("past_values", case.values, past, slice(None)),
            ("future_values", case.values, future, own),
            ("past_observed_mask", case.observed, past, slice(None)),
            ("future_observed_mask", case.observed, future, own),
            ("past_time_features", case.features, past, slice(None)),
            ("future_time_features", case.features, future, slice(None)),
        ):
            if table is None:
                assert name not in batch
            else:
                expected[name].append(table[times, columns])
    for name, pieces in expected.items():
        assert torch.equal(batch[name], torch.from_numpy(np.stack(pieces))), name
    assert batch["past_values"].dtype == torch.float32
    assert windows.weight(indices) == sum(
        len(indices) * case.horizon * case.targets if case.observed is None else mask.sum()
        for mask in ([None] if case.observed is None else batch["future_observed_mask"].numpy())
    )


@given(case=cases())
@settings(deadline=None)
def test_weights_add_up_over_any_cut(case):
    windows = case.windows()
    everything = np.arange(len(windows))
    assert windows.weight(everything) == sum(windows.weight(everything[i : i + 1]) for i in everything)
    assert windows.weight(everything[:0]) == 0


def test_every_last_row_of_the_split_is_used_and_none_after_it():
    case = Case(np.arange(20, dtype=np.float32)[:, None], None, None, 1, Rows(3, 17), 4, 2, 1)
    windows = case.windows()
    assert len(windows) == 9
    batch = windows.batch(np.array([0, 8]))
    assert batch["past_values"][0, :, 0].tolist() == [3, 4, 5, 6]
    assert batch["future_values"][1, :, 0].tolist() == [15, 16]


def test_rows_too_short_for_a_window_give_none():
    assert len(Case(np.zeros((20, 1), np.float32), None, None, 1, Rows(3, 8), 4, 2, 1).windows()) == 0
    assert len(Case(np.zeros((4, 1), np.float32), None, None, 1, Rows(0, 4), 4, 2, 1).windows()) == 0


def test_changing_a_batch_leaves_the_series_alone():
    case = Case(np.ones((20, 2), np.float32), None, None, 2, Rows(0, 20), 4, 2, 1)
    windows = case.windows()
    windows.batch(np.array([0, 1]))["past_values"].zero_()
    assert windows.batch(np.array([0, 1]))["past_values"].min() == 1


@pytest.mark.parametrize("view", ["transposed", "columns", "rows", "every second row"])
def test_a_series_that_is_a_view_of_something_else(view):
    """Tensors need not lie in memory as they read."""
    table = torch.arange(120, dtype=torch.float32).view(20, 6)
    values = {
        "transposed": table.T.contiguous().T,
        "columns": table[:, 1:4],
        "rows": table[2:],
        "every second row": table[::2],
    }[view]
    series = Series(values, values % 3 > 0, values + 0.5, targets=2)
    batch = Windows(series, Rows(1, len(values)), 4, 2).batch(np.array([2, 0]))
    for number, start in enumerate((3, 1)):
        assert torch.equal(batch["past_values"][number], values[start : start + 4])
        assert torch.equal(batch["future_values"][number], values[start + 4 : start + 6, :2])
        assert torch.equal(batch["past_observed_mask"][number], values[start : start + 4] % 3 > 0)
        assert torch.equal(batch["future_time_features"][number], values[start + 4 : start + 6] + 0.5)


def test_a_series_moves_and_knows_its_size():
    series = Series(torch.zeros(10, 3), torch.ones(10, 3, dtype=torch.bool), torch.zeros(10, 2), 1)
    assert series.nbytes == 10 * 3 * 4 + 10 * 3 + 10 * 2 * 4
    assert Series(torch.zeros(10, 3), None, None, 1).nbytes == 120
    moved = series.to(torch.device("cpu"))
    assert moved.targets == 1
    assert torch.equal(moved.values, series.values)


# ---- any dataset -----------------------------------------------------------------------------------------------------


def rows_of(samples: Samples, indices: list[int]) -> dict[str, torch.Tensor]:
    """Use samples as the trainer does."""
    positions = np.array(indices, dtype=np.int64)
    assert samples.weight(positions) == len(indices)
    return samples.batch(positions)


@pytest.fixture
def dataset() -> datasets.Dataset:
    return datasets.Dataset.from_dict(
        {
            "features": [[i, i + 0.5] for i in range(10)],
            "label": list(range(10)),
            "name": [f"row {i}" for i in range(10)],
        }
    )


@pytest.mark.parametrize("form", [None, "numpy", "torch"])
def test_rows_of_a_dataset_in_any_order(dataset, form):
    samples = DatasetSamples(dataset.with_format(form), ["features", "label"])
    assert len(samples) == 10
    batch = rows_of(samples, [7, 0, 7])
    assert batch.keys() == {"features", "label"}
    assert batch["features"].tolist() == [[7, 7.5], [0, 0.5], [7, 7.5]]
    assert batch["label"].tolist() == [7, 0, 7]
    assert batch["features"].dtype.is_floating_point
    assert batch["label"].dtype == torch.int64


def test_a_dataset_from_a_folder_with_a_transform(dataset, tmp_path):
    dataset.save_to_disk(tmp_path / "rows")
    samples = DatasetSamples(
        datasets.load_from_disk(tmp_path / "rows"),
        ["label"],
        device="cpu",
        transform=lambda batch: {"doubled": batch["label"] * 2},
    )
    assert rows_of(samples, [3, 4])["doubled"].tolist() == [6, 8]
