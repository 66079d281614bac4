"""The scan of a batch: equal to the cached orders, exact inverse, independent of the batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_scan_orders import made_grid

from aqnet.model.attention import ModelError
from aqnet.model.check_attention import Sizes, made_up_context
from aqnet.model.scan import SCAN_MODES, WindScan, effective_scan_mode
from aqnet.model.scan_orders import ScanOrders, build_orders, nearest_sector, scan_spec

CHECKER = np.add.outer(np.arange(9), np.arange(12)) % 3 > 0
ORDERS = {
    "full": build_orders(scan_spec(made_grid(8, 12), 2, (4, 3))),
    "uneven": build_orders(scan_spec(made_grid(9, 12), 2, (4, 5))),
    "active": build_orders(scan_spec(made_grid(9, 12), 2, (4, 5), active=CHECKER)),
    "north first": build_orders(scan_spec(made_grid(9, 12, False), 2, (4, 5), active=CHECKER)),
}


def winds(orders: ScanOrders, batch: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Random smooth-less winds, m/s, whose values bf16 holds exactly."""
    made = torch.Generator().manual_seed(seed)
    shape = (2, batch, *orders.spec.grid.shape)
    return tuple(torch.randint(-64, 65, shape, generator=made).float() / 8)


def slow_order(orders: ScanOrders, u: np.ndarray, v: np.ndarray, calm: float) -> np.ndarray:
    """The region order of one sample by loops over regions, in float64."""
    size = orders.spec.patch_size
    numbers = np.full(orders.spec.active.shape, -1)
    numbers[orders.spec.active] = orders.region
    cell_region = np.kron(numbers, np.ones((size, size), int))
    speed = np.hypot(u, v)
    sums = np.array(
        [
            [
                (speed * u)[cell_region == r].sum(),
                (speed * v)[cell_region == r].sum(),
                speed[cell_region == r].sum(),
            ]
            for r in range(orders.region_size.size)
        ]
    )
    domain = int(nearest_sector(*sums.sum(0)[:2], orders.spec.sectors))
    sector = nearest_sector(sums[:, 0], sums[:, 1], orders.spec.sectors)
    sector[np.hypot(*sums[:, :2].T) < calm * np.maximum(sums[:, 2], 1e-12)] = domain
    return orders.order("region", domain, sector)


@pytest.mark.parametrize("name", ORDERS)
def test_the_batched_region_order_is_the_slow_one(name):
    orders = ORDERS[name]
    u, v = winds(orders, 5)
    u[0], v[0] = 0.0, 0.0
    u[1, :6], v[1, :6] = 0.125, 0.0  # calm in a part of the domain
    scan = WindScan(orders, "region", calm_m_s=0.5)(u, v)
    for b in range(5):
        expected = slow_order(orders, u[b].double().numpy(), v[b].double().numpy(), 0.5)
        assert np.array_equal(scan.order[b].numpy(), expected)


@pytest.mark.parametrize("mode", ["none", "domain", "lanes"])
@pytest.mark.parametrize("name", ORDERS)
def test_other_modes_follow_the_mean_wind(mode, name):
    orders = ORDERS[name]
    u, v = winds(orders, 3)
    scan = WindScan(orders, mode)(u + 30, v)
    token = np.arange(orders.region.size)
    for b in range(3):
        expected = token if mode == "none" else orders.order(mode, 0)
        assert np.array_equal(scan.order[b].numpy(), expected)


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(sorted(ORDERS)), st.sampled_from(SCAN_MODES[:-1]), st.integers(0, 99))
def test_restore_is_the_exact_inverse(name, mode, seed):
    orders = ORDERS[name]
    scan = WindScan(orders, mode)(*winds(orders, 2, seed))
    n = orders.region.size
    tokens, elevation = torch.randn(2, n, 4), torch.randn(n)
    permuted, heights = scan.permute(tokens, elevation)
    assert heights.shape == (2, n)
    assert torch.equal(permuted[1], tokens[1, scan.order[1]])
    assert torch.equal(heights[1], elevation[scan.order[1]])
    back, level = scan.restore(permuted, heights)
    assert torch.equal(back, tokens) and torch.equal(level, elevation.expand(2, n))


def test_one_function_permutes_all_that_belongs_to_tokens():
    orders = ORDERS["active"]
    n = orders.region.size
    scan = WindScan(orders, "region")(*winds(orders, 2))
    context = made_up_context(Sizes(tokens=n, batch=2))
    position, patch = torch.randn(1, n, 3), torch.arange(2 * n).view(n, 2)
    moved, ids, own = scan.permute(position, patch, context)
    for b in range(2):
        assert torch.equal(moved[b], position[0, scan.order[b]])
        assert torch.equal(ids[b], patch[scan.order[b]])
        assert torch.equal(own.elevation[b], context.elevation[scan.order[b]])
        assert torch.equal(own.wind[b], context.wind[b, scan.order[b]])
        assert torch.equal(own.geometry.up[b], context.geometry.up[scan.order[b]])
    back, ids, again = scan.restore(moved, ids, own)
    assert torch.equal(back, position.expand(2, n, 3)) and torch.equal(ids[1], patch)
    assert torch.equal(again.wind, context.wind)
    assert torch.equal(again.ridge[0][1], context.ridge[0])


def test_what_is_not_of_the_tokens_is_refused():
    orders = ORDERS["active"]
    n = orders.region.size
    scan = WindScan(orders, "region")(*winds(orders, 2))
    wrong = [torch.zeros(3, n), torch.zeros(n - 1), torch.zeros(2, n - 1, n), torch.zeros(())]
    wrong += [made_up_context(Sizes(tokens=n, batch=3)), made_up_context(Sizes(tokens=9, batch=2))]
    for thing in wrong:
        with pytest.raises(ModelError, match=rf"\(2, {n}, ...\), \(1, {n}, ...\) or \({n}, ...\)"):
            scan.permute(thing)


@pytest.mark.parametrize("name", ORDERS)
def test_ranks_run_from_0_to_1(name):
    orders = ORDERS[name]
    scan = WindScan(orders, "region")(*winds(orders, 2))
    assert torch.equal(
        scan.rank_domain.sort(1).values[0],
        torch.arange(orders.region.size) / (orders.region.size - 1),
    )
    for region in np.flatnonzero(orders.region_size > 1):
        ranks = scan.rank_region[1, torch.as_tensor(orders.region == region)].sort().values
        assert torch.allclose(ranks, torch.linspace(0, 1, len(ranks)))


def test_a_batch_of_equal_samples_and_another_dtype_give_the_same_order():
    orders = ORDERS["active"]
    u, v = winds(orders, 1)
    layer = WindScan(orders, "region")
    alone = layer(u, v)
    among = layer(torch.cat([winds(orders, 6, 3)[0], u]), torch.cat([winds(orders, 6, 3)[1], v]))
    assert torch.equal(among.order[6], alone.order[0])
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        assert torch.equal(layer(u.to(dtype), v.to(dtype)).order, alone.order)


def test_unknown_cells_do_not_count():
    orders = ORDERS["uneven"]
    u, v = winds(orders, 2)
    valid = torch.rand(u.shape) > 0.3
    layer = WindScan(orders, "region")
    masked = layer(u, v, valid)
    wild = layer(torch.where(valid, u, 50.0), torch.where(valid, v, torch.nan), valid)
    gaps = layer(torch.where(valid, u, torch.nan), torch.where(valid, v, torch.inf))
    assert torch.equal(masked.order, wild.order) and torch.equal(masked.order, gaps.order)


def test_a_calm_domain_keeps_the_domain_order_in_every_region():
    orders = ORDERS["full"]
    u, v = torch.full((1, 16, 24), 0.25), torch.zeros(1, 16, 24)
    scan = WindScan(orders, "region", calm_m_s=0.5)(u, v)
    assert np.array_equal(scan.order[0].numpy(), orders.order("region", 0))
    own = torch.zeros_like(u), torch.full_like(u, 0.25)
    both = WindScan(orders, "region", calm_m_s=0.0)(*own)
    assert np.array_equal(both.order[0].numpy(), orders.order("region", 4))


@pytest.mark.parametrize("shape", [(32, 48), (24, 16), (16, 26)])
def test_winds_of_another_grid_are_refused(shape):
    with pytest.raises(ModelError, match=r"\(16, 24\)"):
        WindScan(ORDERS["full"])(*torch.randn(2, 1, *shape))


def test_a_region_without_valid_cells_takes_the_domain_order_at_any_threshold():
    orders = ORDERS["full"]
    valid = torch.ones(16, 24, dtype=torch.bool)
    valid[:4, :8] = False  # region 0
    wind = torch.zeros(1, 16, 24), torch.full((1, 16, 24), 5.0)
    for calm in (0.5, 0.0):
        scan = WindScan(orders, "region", calm_m_s=calm)(*wind, valid)
        assert np.array_equal(scan.order[0].numpy(), orders.order("region", 4))


def test_one_graph_for_torch_compile():
    orders = ORDERS["active"]
    for mode in ("domain", "region", "lanes"):
        layer = WindScan(orders, mode)
        compiled = torch.compile(layer, fullgraph=True, backend="eager")
        u, v = winds(orders, 2)
        assert torch.equal(compiled(u, v).order, layer(u, v).order)


def test_tables_are_in_no_checkpoint():
    assert WindScan(ORDERS["full"]).state_dict() == {}


# ---- the published behaviour


def published_order(u, v, sectors=16):
    """Loops of the historical scan: 32 x 32 regions of 2 x 4 patches on 64 x 128 patches."""
    sequence = np.arange(64 * 128)
    columns, rows = np.meshgrid(np.linspace(-1, 1, 4), np.linspace(-1, 1, 2))
    for index in range(1024):
        r, c = divmod(index, 32)
        cells = np.s_[4 * r : 4 * r + 4, 8 * c : 8 * c + 8]
        speed = np.hypot(u[cells], v[cells])
        angle = np.arctan2((v[cells] * speed).sum(), (u[cells] * speed).sum())
        sector = int(np.floor(angle / (2 * np.pi) * sectors + 0.5)) % sectors
        theta = 2 * np.pi * sector / sectors
        key = (columns * np.cos(theta) - rows * np.sin(theta)).ravel()
        strip = np.arange(8 * index, 8 * index + 8)
        sequence[strip] = strip[np.argsort(np.rint(key * 1e6), kind="stable")]
    return sequence


def test_legacy_permutes_strips_and_does_not_put_them_back():
    from aqnet.grid import GRIDS

    orders = build_orders(scan_spec(GRIDS["reference"]))
    rng = np.random.default_rng(5)
    u, v = rng.integers(-40, 41, (2, 2, 128, 256)) / 4
    scan = WindScan(orders, "legacy")(torch.tensor(u), torch.tensor(v))
    for b in range(2):
        assert np.array_equal(scan.order[b].numpy(), published_order(u[b], v[b]))
    tokens = torch.randn(2, 8192, 1)
    (permuted,) = scan.permute(tokens)
    assert torch.equal(scan.restore(permuted)[0], permuted) and not torch.equal(permuted, tokens)


def test_legacy_needs_equal_regions():
    for name in ("uneven", "active"):
        with pytest.raises(ModelError, match="equal regions"):
            WindScan(ORDERS[name], "legacy")


def test_a_scan_that_changes_nothing_is_skipped_with_a_warning():
    with pytest.warns(UserWarning, match="it is skipped"):
        assert effective_scan_mode("region", depends_on_order=False) == "none"
    assert effective_scan_mode("region", depends_on_order=True) == "region"
    assert effective_scan_mode("legacy", depends_on_order=False) == "legacy"
    with pytest.raises(ModelError, match="one of"):
        effective_scan_mode("spiral", depends_on_order=True)
