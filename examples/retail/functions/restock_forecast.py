"""When does a shelf run empty, when is it full again, and what should be ordered? A forecast without a language model.

A `function` tool: `restock_forecast` is a plain function, and the one thing in here that others call. It reads the sales
history (read-only), treats days on which there was nothing to sell as missing, and lets a structural time series model
(level, week, year, promotions) stand for demand; stock is then played forward through a thousand futures.

Sources: Harvey, "Forecasting, Structural Time Series Models and the Kalman Filter" (1989), as in
https://www.statsmodels.org/stable/generated/statsmodels.tsa.statespace.structural.UnobservedComponents.html; for
products that sell on few days, Teunter, Syntetos and Babai, "Intermittent demand" (EJOR 214, 2011).
"""

import asyncio
import datetime as dt
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeAlias

import asyncpg
import numpy as np
import numpy.typing as npt
from msgspec import Meta, Struct

HORIZON_DAYS: Final = (7, 180)
SERVICE_LEVEL: Final = (0.5, 0.999)
INBOUND_MAX: Final = 50
INTERVAL: Final = 0.8
"""Share of futures between `low` and `high`, and between `early` and `late`."""

PATHS: Final = 1_000
PATHS_SEED: Final = 20_111
"""Always the same futures: the same question has the same answer, and more stock never looks worse by chance."""

HISTORY_DAYS_MIN: Final = 14
STRUCTURAL_DAYS_MIN: Final = 70
YEAR_DAYS_MIN: Final = 450
INTERMITTENT_SHARE: Final = 0.35
"""From this share of days without a sale on, a level with noise around it is the wrong picture."""
BACKTEST_DAYS: Final = 28
COVER_DAYS: Final = 28
"""How long a recommended order is to last after it arrived."""

SURPRISE_MAX: Final = 14.0
"""A run of days without a sale is a stock-out if demand as before would make it rarer than exp(-this)."""
LEVEL_DAYS: Final = 56
FIT_STEPS_MAX: Final = 50
WEEK_BURN: Final = 28
YEAR_BURN: Final = 365
PEAKS_MAX: Final = 3.0
"""No future day sells more than this many times the best day known: a log scale has no ceiling of its own."""
TSB_SHARE_STEP: Final = 0.05
TSB_SIZE_STEP: Final = 0.1
READ_TIMEOUT_S: Final = 20.0

Numbers: TypeAlias = npt.NDArray[np.float64]
Flags: TypeAlias = npt.NDArray[np.bool_]


class Inbound(Struct, frozen=True):
    """A shipment on its way."""

    arrives_on: Annotated[
        dt.date, Meta(description="Day on which it is expected at the center as known now.")
    ]
    units: Annotated[int, Meta(ge=1, description="Units of this product.")]


class Amount(Struct, frozen=True):
    """Units: the mean of the futures, and the interval."""

    expected: float
    low: float
    high: float


class DayForecast(Amount, frozen=True):
    day: dt.date


class DateInterval(Struct, frozen=True):
    """Dates by which a tenth, half and nine tenths of the futures have got there; null: not within the horizon."""

    early: dt.date | None
    median: dt.date | None
    late: dt.date | None
    share: Annotated[
        float, Meta(description="Share of futures in which it happens within the horizon at all.")
    ]


class Recommendation(Struct, frozen=True):
    order_units: Annotated[
        int, Meta(description="In full cartons; 0: what is there and under way is enough.")
    ]
    order_by: dt.date | None
    arrives_on: Annotated[dt.date, Meta(description="Arrival of an order that is made on the first day.")]
    too_late_share: Annotated[
        float, Meta(description="Share of futures in which stock runs out before that arrival.")
    ]
    lead_time_days: int
    units_per_carton: int


class Fit(Struct, frozen=True):
    model: str
    why: str
    observed_days: int
    missing_days: Annotated[int, Meta(description="Days left out because there was nothing to sell.")]
    aicc: float | None
    backtest_days: int
    backtest_error: Annotated[
        float | None, Meta(description="Sum of absolute errors by sum of sales, held-out days.")
    ]
    backtest_coverage: Annotated[
        float | None, Meta(description="Share of held-out days inside the interval.")
    ]


class RestockForecast(Struct, frozen=True):
    sku: str
    dc: str
    first_day: dt.date
    horizon_days: int
    interval: Annotated[float, Meta(description="Share of futures inside every interval here.")]
    demand_per_day: Amount
    days: tuple[DayForecast, ...]
    on_hand: int
    out_of_stock_now: bool
    stock_out: Annotated[
        DateInterval, Meta(description="The next day on which stock runs out (after a restock if out now).")
    ]
    restocked_on: Annotated[dt.date | None, Meta(description="First inbound arrival.")]
    safety_stock: int
    above_safety_stock: Annotated[
        DateInterval, Meta(description="The first day that ends with safety stock or more.")
    ]
    lost_units: Annotated[Amount, Meta(description="Demand within the horizon that meets an empty shelf.")]
    recommendation: Recommendation
    fit: Fit


def restock_forecast(
    sku: Annotated[str, Meta(description="Product, for example SKU-4482.")],
    dc: Annotated[str, Meta(description="Code of the distribution center, for example SHA.")],
    *,
    database_url: str,
    on_hand: Annotated[
        int, Meta(ge=0, description="Units that can be sold now (`available` of the stock level).")
    ] = 0,
    inbound: Annotated[
        Sequence[Inbound],
        Meta(
            max_length=INBOUND_MAX,
            description="Shipments with a known day of arrival. Leave out what nobody can date.",
        ),
    ] = (),
    horizon_days: Annotated[
        int, Meta(ge=HORIZON_DAYS[0], le=HORIZON_DAYS[1], description="How many days to look ahead.")
    ] = 60,
    service_level: Annotated[
        float,
        Meta(
            ge=SERVICE_LEVEL[0],
            le=SERVICE_LEVEL[1],
            description="Probability of not running out that is aimed at.",
        ),
    ] = 0.95,
) -> RestockForecast:
    """Forecast demand and stock of one product at one distribution center: expected sales per day, when stock runs out,
    when it is back above safety stock, what to order and by when. Statistical, with 80 % intervals; no promotions assumed.
    """
    _check(on_hand, inbound, horizon_days, service_level)
    record = asyncio.run(_read(database_url, sku, dc))
    history = record.history
    arrivals = _arrivals(inbound, history.first_future_day)
    fitted, fit = _fit(history)
    days = max(horizon_days, record.lead_time_days + COVER_DAYS)
    paths = fitted.paths(np.zeros(days, dtype=np.bool_))
    seen = paths[:, :horizon_days]
    lead_demand = paths[:, : record.lead_time_days].sum(axis=1)
    safety_stock = max(round(float(np.quantile(lead_demand, service_level) - lead_demand.mean())), 0)
    future = _play(paths, on_hand, arrivals)
    stock = future.stock[:, :horizon_days]
    first = history.first_future_day
    out = _running_out(stock, on_hand)
    return RestockForecast(
        sku=sku,
        dc=dc,
        first_day=first,
        horizon_days=horizon_days,
        interval=INTERVAL,
        demand_per_day=Amount(*_summary(seen.mean(axis=1))),
        days=tuple(
            DayForecast(*_summary(seen[:, day]), first + dt.timedelta(days=day))
            for day in range(horizon_days)
        ),
        on_hand=on_hand,
        out_of_stock_now=on_hand == 0,
        stock_out=_dates(first, out),
        restocked_on=first + dt.timedelta(days=min(arrivals)) if arrivals else None,
        safety_stock=safety_stock,
        above_safety_stock=_dates(first, stock >= max(safety_stock, 1)),
        lost_units=Amount(*_summary(future.lost[:, :horizon_days].sum(axis=1))),
        recommendation=_recommend(record, paths, future, arrivals, service_level),
        fit=fit,
    )


# What is known: the sales history, without the days on which there was nothing to sell.


@dataclass(frozen=True)
class _History:
    first_day: dt.date
    units: Numbers
    """NaN where there was nothing to sell."""
    promotion: Flags

    @property
    def first_future_day(self) -> dt.date:
        return self.first_day + dt.timedelta(days=len(self.units))

    @property
    def observed(self) -> Numbers:
        return self.units[~np.isnan(self.units)]

    def until(self, days: int) -> "_History":
        return _History(self.first_day, self.units[:days], self.promotion[:days])


@dataclass(frozen=True)
class _Record:
    history: _History
    lead_time_days: int
    units_per_carton: int
    discontinued: bool


def _check(on_hand: int, inbound: Sequence[Inbound], horizon_days: int, service_level: float) -> None:
    if on_hand < 0:
        raise ValueError(f"on_hand: expected 0 or more units, got {on_hand}")
    if not HORIZON_DAYS[0] <= horizon_days <= HORIZON_DAYS[1]:
        raise ValueError(f"horizon_days: expected {HORIZON_DAYS[0]} to {HORIZON_DAYS[1]}, got {horizon_days}")
    if not SERVICE_LEVEL[0] <= service_level <= SERVICE_LEVEL[1]:
        raise ValueError(
            f"service_level: expected {SERVICE_LEVEL[0]} to {SERVICE_LEVEL[1]}, got {service_level}"
        )
    if len(inbound) > INBOUND_MAX:
        raise ValueError(f"inbound: expected at most {INBOUND_MAX} shipments, got {len(inbound)}")


async def _read(database_url: str, sku: str, dc: str) -> _Record:
    connection = await asyncpg.connect(database_url, timeout=READ_TIMEOUT_S, command_timeout=READ_TIMEOUT_S)
    try:
        product = await connection.fetchrow(
            "SELECT units_per_carton, status, lead_time_days FROM products JOIN suppliers USING (supplier_id) WHERE sku = $1",
            sku,
        )
        rows = await connection.fetch(
            "SELECT day, units, promotion FROM daily_sales WHERE sku = $1 AND dc = $2 ORDER BY day", sku, dc
        )
        kept_at = (
            [] if rows else await connection.fetch("SELECT DISTINCT dc FROM daily_sales WHERE sku = $1", sku)
        )
    finally:
        await connection.close()
    if product is None:
        raise ValueError(
            f"sku: there is no product {sku!r}; a code looks like SKU-4482 and is in the table products"
        )
    if not rows:
        centers = ", ".join(sorted(row["dc"] for row in kept_at)) or "no center"
        raise ValueError(
            f"dc: {sku} was never sold at {dc!r}, so there is nothing to forecast from; it is kept at {centers}"
        )
    return _Record(
        _history(sku, dc, rows),
        product["lead_time_days"],
        product["units_per_carton"],
        product["status"] == "discontinued",
    )


def _history(sku: str, dc: str, rows: Sequence[Any]) -> _History:
    first = rows[0]["day"]
    units = np.full((rows[-1]["day"] - first).days + 1, np.nan)
    promotion = np.zeros(len(units), dtype=np.bool_)
    index = [(row["day"] - first).days for row in rows]
    units[index] = [row["units"] for row in rows]
    promotion[index] = [row["promotion"] for row in rows]
    if not np.nansum(units):
        raise ValueError(
            f"{sku} has been on the shelf at {dc} since {first} and was never sold: there is no demand to forecast"
        )
    history = _History(first, _without_stock_outs(units), promotion)
    if len(history.observed) < HISTORY_DAYS_MIN:
        raise ValueError(
            f"{sku} at {dc} has {len(history.observed)} days with stock on the shelf; a forecast needs {HISTORY_DAYS_MIN}"
        )
    return history


def _without_stock_outs(units: Numbers) -> Numbers:
    """Runs of zeros that demand as before would not have left, and the day on which the last piece went, become NaN."""
    known = units.copy()
    sold_nothing = np.flatnonzero(np.diff(np.concatenate(([0], units == 0, [0]))))
    for start, end in zip(sold_nothing[::2], sold_nothing[1::2], strict=True):
        before = known[max(start - LEVEL_DAYS, 0) : start]
        before = before[~np.isnan(before)]
        if len(before) and before.mean() * (end - start) > SURPRISE_MAX:
            known[max(start - 1, 0) : end] = np.nan
    return known


# Demand: a model gives futures as an array of paths x days.


@dataclass(frozen=True)
class _Fitted:
    model: str
    why: str
    aicc: float | None
    paths: Callable[[Flags], Numbers]
    """Takes whether a promotion runs on each of the days to come."""


def _fit(history: _History) -> tuple[_Fitted, Fit]:
    """The model for this kind of history, fitted to all of it; and how it did on its last days without knowing them."""
    candidates = _candidates(history)
    held = BACKTEST_DAYS if len(history.observed) >= HISTORY_DAYS_MIN + BACKTEST_DAYS else 0
    error = coverage = None
    if held:
        cut = int(np.flatnonzero(~np.isnan(history.units))[-held])
        early = _best(history.until(cut), candidates)
        error, coverage = _backtest(early, history, cut)
        candidates = tuple(candidate for candidate in candidates if candidate.name == early.model)
    fitted = _best(history, candidates)
    return fitted, Fit(
        model=fitted.model,
        why=fitted.why,
        observed_days=len(history.observed),
        missing_days=len(history.units) - len(history.observed),
        aicc=None if fitted.aicc is None else round(fitted.aicc, 1),
        backtest_days=held,
        backtest_error=error,
        backtest_coverage=coverage,
    )


@dataclass(frozen=True)
class _Candidate:
    name: str
    why: str
    fit: Callable[[_History, "_Candidate"], _Fitted]
    level: str = ""
    year: bool = False


def _candidates(history: _History) -> tuple[_Candidate, ...]:
    observed = history.observed
    if len(observed) < STRUCTURAL_DAYS_MIN:
        why = f"only {len(observed)} days are known: one level, with all the doubt that leaves"
        return (_Candidate("gamma-poisson", why, _gamma_poisson),)
    idle = float((observed == 0).mean())
    if idle >= INTERMITTENT_SHARE:
        why = f"nothing is sold on {idle:.0%} of days: how often and how much are followed apart"
        return (_Candidate("intermittent (TSB)", why, _intermittent),)
    plans = [
        ("level + week", "local level", False),
        ("level with drift + week", "random walk with drift", False),
    ]
    if len(observed) >= YEAR_DAYS_MIN:
        plans[1] = ("level + week + year", "local level", True)
    why = "lower AICc of: " + ", ".join(name for name, _, _ in plans)
    return tuple(_Candidate(name, why, _structural, level, year) for name, level, year in plans)


def _best(history: _History, candidates: Sequence[_Candidate]) -> _Fitted:
    fits = [candidate.fit(history, candidate) for candidate in candidates]
    return min(fits, key=lambda fitted: fitted.aicc or 0.0)


def _backtest(fitted: _Fitted, history: _History, cut: int) -> tuple[float, float]:
    paths = fitted.paths(history.promotion[cut:])
    sold = history.units[cut:]
    known = ~np.isnan(sold)
    low, high = np.quantile(paths, [(1 - INTERVAL) / 2, (1 + INTERVAL) / 2], axis=0)
    error = np.abs(paths.mean(axis=0) - sold)[known].sum() / max(sold[known].sum(), 1.0)
    inside = ((sold >= np.floor(low)) & (sold <= np.ceil(high)))[known].mean()
    return round(float(error), 3), round(float(inside), 3)


def _structural(history: _History, candidate: _Candidate) -> _Fitted:
    """On the log scale, where seasons and promotions multiply. Missing days cost nothing: the Kalman filter steps over."""
    # 1.6 s to import, measured: here, so that products that need no fit, or do not exist, are answered at once.
    from statsmodels.tsa.statespace.structural import UnobservedComponents  # noqa: PLC0415

    promoted = bool(history.promotion.any())
    model = UnobservedComponents(
        np.log1p(history.units),
        level=candidate.level,
        seasonal=7,
        stochastic_seasonal=False,
        exog=_regressors(history.first_day, history.promotion, candidate, promoted=promoted),
        # Regressors are states that start unknown (four times faster than as parameters). The first days only teach: the
        # likelihood counts from where every candidate has learned its states, or they could not be compared.
        mle_regression=False,
        loglikelihood_burn=YEAR_BURN if len(history.observed) >= YEAR_DAYS_MIN else WEEK_BURN,
    )
    with warnings.catch_warnings():
        # A flat likelihood (no drift in the level at all) is reported as missing convergence; the backtest is the judge.
        warnings.simplefilter("ignore")
        result = model.fit(disp=False, maxiter=FIT_STEPS_MAX)
    ceiling = PEAKS_MAX * float(history.observed.max())

    def paths(promotion: Flags) -> Numbers:
        future = result.simulate(
            len(promotion),
            anchor="end",
            repetitions=PATHS,
            exog=_regressors(history.first_future_day, promotion, candidate, promoted=promoted),
            rng=np.random.default_rng(PATHS_SEED),
        )
        units = np.expm1(np.asarray(future).reshape(len(promotion), PATHS).T)
        return np.asarray(np.clip(np.rint(units), 0.0, ceiling), dtype=np.float64)

    return _Fitted(candidate.name, candidate.why, float(result.aicc), paths)


def _regressors(
    first_day: dt.date, promotion: Flags, candidate: _Candidate, *, promoted: bool
) -> Numbers | None:
    columns = [promotion.astype(np.float64)] if promoted else []
    if candidate.year:
        angle = 2 * np.pi * (first_day.timetuple().tm_yday + np.arange(len(promotion))) / 365.25
        columns += [wave(order * angle) for order in (1, 2) for wave in (np.sin, np.cos)]
    return np.column_stack(columns) if columns else None


def _intermittent(history: _History, candidate: _Candidate) -> _Fitted:
    """Probability of a sale and its size, each smoothed by itself (TSB); sizes vary as Poisson around theirs."""
    observed = history.observed
    share, size = float((observed > 0).mean()), float(observed[observed > 0].mean())
    for units in observed:
        share += TSB_SHARE_STEP * (float(units > 0) - share)
        size += TSB_SIZE_STEP * (float(units) - size) if units else 0.0

    def paths(promotion: Flags) -> Numbers:
        rng = np.random.default_rng(PATHS_SEED)
        shape = (PATHS, len(promotion))
        bought = rng.uniform(size=shape) < share
        return np.asarray(bought * (1 + rng.poisson(max(size - 1.0, 0.0), size=shape)), dtype=np.float64)

    return _Fitted(candidate.name, candidate.why, None, paths)


def _gamma_poisson(history: _History, candidate: _Candidate) -> _Fitted:
    """Each future has a level of its own, drawn from what the few days leave possible, and Poisson days around it."""
    observed = history.observed

    def paths(promotion: Flags) -> Numbers:
        rng = np.random.default_rng(PATHS_SEED)
        level = rng.gamma(observed.sum() + 0.5, 1.0 / len(observed), size=(PATHS, 1))
        return np.asarray(rng.poisson(level, size=(PATHS, len(promotion))), dtype=np.float64)

    return _Fitted(candidate.name, candidate.why, None, paths)


# Stock: every future of demand meets what is on the shelf and what arrives. What finds nothing is lost.


@dataclass(frozen=True)
class _Future:
    """Paths x days: stock at the end of the day, and demand that was not met."""

    stock: Numbers
    lost: Numbers


def _arrivals(inbound: Sequence[Inbound], first_day: dt.date) -> dict[int, int]:
    """Units by day from the first one on."""
    arrivals: dict[int, int] = {}
    for number, shipment in enumerate(inbound):
        day = (shipment.arrives_on - first_day).days
        if day < 0:
            raise ValueError(
                f"inbound[{number}].arrives_on: {shipment.arrives_on} is before the forecast's first day {first_day}; "
                "give the day on which it is expected now, or leave it out if nobody can say"
            )
        if shipment.units < 1:
            raise ValueError(f"inbound[{number}].units: expected 1 or more, got {shipment.units}")
        arrivals[day] = arrivals.get(day, 0) + shipment.units
    return arrivals


def _play(paths: Numbers, on_hand: int, arrivals: dict[int, int]) -> _Future:
    stock, lost = np.zeros_like(paths), np.zeros_like(paths)
    shelf = np.full(len(paths), float(on_hand))
    for day in range(paths.shape[1]):
        shelf = shelf + arrivals.get(day, 0) - paths[:, day]
        lost[:, day] = np.maximum(-shelf, 0.0)
        shelf = np.maximum(shelf, 0.0)
        stock[:, day] = shelf
    return _Future(stock, lost)


def _running_out(stock: Numbers, on_hand: int) -> Flags:
    """Days that end with an empty shelf after one that did not."""
    before = np.column_stack([np.full(len(stock), float(on_hand)), stock[:, :-1]])
    return np.asarray((stock == 0) & (before > 0), dtype=np.bool_)


def _recommend(
    record: _Record, paths: Numbers, future: _Future, arrivals: dict[int, int], service_level: float
) -> Recommendation:
    """So much that, at the service level, the weeks after its arrival are covered by it and by what is there then."""
    first, lead = record.history.first_future_day, record.lead_time_days
    before = future.stock[:, max(lead - 1, 0)] + sum(
        units for day, units in arrivals.items() if lead <= day < lead + COVER_DAYS
    )
    shortfall = paths[:, lead : lead + COVER_DAYS].sum(axis=1) - before
    wanted = max(float(np.quantile(shortfall, service_level)), 0.0)
    cartons = 0 if record.discontinued else int(np.ceil(wanted / record.units_per_carton))
    empty = future.lost[:, :lead].sum(axis=1) > 0
    runs_out = (future.lost > 0).any(axis=1)
    first_lost = np.where(runs_out, np.argmax(future.lost > 0, axis=1), paths.shape[1])
    latest = max(int(np.quantile(first_lost, 1 - service_level)) - lead, 0)
    return Recommendation(
        order_units=cartons * record.units_per_carton,
        order_by=first + dt.timedelta(days=latest) if cartons else None,
        arrives_on=first + dt.timedelta(days=lead),
        too_late_share=round(float(empty.mean()), 3),
        lead_time_days=lead,
        units_per_carton=record.units_per_carton,
    )


def _dates(first_day: dt.date, happens: Flags) -> DateInterval:
    """When it happens first, over the futures; those in which it does not happen count as later than all others."""
    ever = happens.any(axis=1)
    days = np.where(ever, np.argmax(happens, axis=1), happens.shape[1])
    early, median, late = (
        first_day + dt.timedelta(days=int(day)) if day < happens.shape[1] else None
        for day in np.quantile(days, [(1 - INTERVAL) / 2, 0.5, (1 + INTERVAL) / 2], method="lower")
    )
    return DateInterval(early, median, late, round(float(ever.mean()), 3))


def _summary(values: Numbers) -> tuple[float, float, float]:
    low, high = np.quantile(values, [(1 - INTERVAL) / 2, (1 + INTERVAL) / 2])
    return round(float(values.mean()), 1), round(float(low), 1), round(float(high), 1)
