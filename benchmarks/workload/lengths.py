"""Distributions of lengths in tokens: how they are written, and integers drawn from them."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BeforeValidator, Discriminator, Field, TypeAdapter, ValidationError
from pydantic import model_validator as validator

from benchmarks.records import Model
from benchmarks.workload.errors import WorkloadError

Integers = npt.NDArray[np.int64]
MAX_TOKENS = 1_000_000  # no Gemma takes more
Tokens = Annotated[int, Field(ge=1, le=MAX_TOKENS)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]

FORMS = (
    "128, 64-256 (uniform), 128±0.5 (uniform, within half of 128), normal:MEAN,STD[,MIN,MAX], "
    "lognormal:MEDIAN,SIGMA[,MIN,MAX] or lognormal:mean=MEAN,std=STD"
)


class Fixed(Model):
    """Always the same."""

    distribution: Literal["fixed"] = "fixed"
    tokens: Tokens

    def sample(self, rng: np.random.Generator, count: int) -> Integers:  # noqa: ARG002
        """The same number `count` times."""
        return np.full(count, self.tokens, dtype=np.int64)

    def longest(self) -> int:
        """The most that can be drawn."""
        return self.tokens

    def describe(self) -> str:
        """As in a description of the workload."""
        return f"{self.tokens} tokens"


class Uniform(Model):
    """Every integer from low to high alike, both included."""

    distribution: Literal["uniform"] = "uniform"
    low: Tokens
    high: Tokens

    @validator(mode="after")
    def _in_order(self) -> Self:
        _check_order("low", self.low, "high", self.high)
        return self

    def sample(self, rng: np.random.Generator, count: int) -> Integers:
        """`count` draws."""
        return rng.integers(self.low, self.high, size=count, endpoint=True, dtype=np.int64)

    def longest(self) -> int:
        """The most that can be drawn."""
        return self.high

    def describe(self) -> str:
        """As in a description of the workload."""
        return f"{self.low} to {self.high} tokens, uniform"


class _Limited(Model):
    min: Tokens = 1
    max: Tokens | None = None

    @validator(mode="after")
    def _limits_in_order(self) -> Self:
        _check_order("min", self.min, "max", self.max)
        return self

    def longest(self) -> int:
        """The most that can be drawn."""
        return self.max or MAX_TOKENS

    def _clipped(self, values: npt.NDArray[np.float64]) -> Integers:
        return np.clip(np.rint(values), self.min, self.max or MAX_TOKENS).astype(np.int64)

    def _limits(self) -> str:
        if self.max is not None:
            return f", within {self.min} to {self.max}"
        return f", at least {self.min}" if self.min > 1 else ""


class Normal(_Limited):
    """
    Normal with this mean and standard deviation, rounded.

    What falls beyond min and max is put on them, not drawn again: with a wide std the mean of the
    lengths is no longer `mean`.
    """

    distribution: Literal["normal"] = "normal"
    mean: Positive
    std: NotNegative

    def sample(self, rng: np.random.Generator, count: int) -> Integers:
        """`count` draws."""
        return self._clipped(rng.normal(self.mean, self.std, count))

    def describe(self) -> str:
        """As in a description of the workload."""
        return f"normal of mean {self.mean:g} tokens, std {self.std:g}{self._limits()}"


class Lognormal(_Limited):
    """
    Lognormal, rounded and put within min and max; by median and sigma, or by mean and std.

    ln(length) is normal with mean mu = ln(median) and standard deviation sigma. With mean m and
    standard deviation s of the length itself: sigma^2 = ln(1 + s^2 / m^2) and
    median = m / sqrt(1 + s^2 / m^2).
    """

    distribution: Literal["lognormal"] = "lognormal"
    median: Positive | None = None
    sigma: NotNegative | None = None
    mean: Positive | None = None
    std: NotNegative | None = None

    @validator(mode="after")
    def _one_pair(self) -> Self:
        given = [
            name for name in ("median", "sigma", "mean", "std") if getattr(self, name) is not None
        ]
        if given not in (["median", "sigma"], ["mean", "std"]):
            raise ValueError("a lognormal takes either median and sigma, or mean and std")
        return self

    def log_parameters(self) -> tuple[float, float]:
        """Mean and standard deviation of ln(length)."""
        if self.median is not None and self.sigma is not None:
            return math.log(self.median), self.sigma
        assert self.mean is not None
        assert self.std is not None
        spread = 1 + (self.std / self.mean) ** 2
        return math.log(self.mean / math.sqrt(spread)), math.sqrt(math.log(spread))

    def sample(self, rng: np.random.Generator, count: int) -> Integers:
        """`count` draws."""
        return self._clipped(rng.lognormal(*self.log_parameters(), count))

    def describe(self) -> str:
        """As in a description of the workload."""
        if self.median is not None:
            return (
                f"lognormal of median {self.median:g} tokens, sigma {self.sigma:g}{self._limits()}"
            )
        return f"lognormal of mean {self.mean:g} tokens, std {self.std:g}{self._limits()}"


def _check_order(low: str, least: int, high: str, most: int | None) -> None:
    if most is not None and least > most:
        raise ValueError(f"{low}={least} is above {high}={most}")


def parse_lengths(text: str) -> Lengths:
    """
    The distribution that a few characters ask for.

    `128` is fixed; `64-256` uniform; `128±0.5` (or `128+-0.5`) uniform from floor(64) to ceil(192),
    which is vLLM's --random-range-ratio; `normal:200,50,10,400` and `lognormal:200,0.5` take mean
    and std, or median and sigma, then min and max; each may be given by name, as in
    `lognormal:mean=200,std=100,max=400`.

    Raises:
        WorkloadError: it is none of these.
    """
    try:
        return _ADAPTER.validate_python(_fields(text))
    except ValidationError as error:
        reason = _reason(error)
    except ValueError as error:
        reason = str(error)
    raise WorkloadError(f"lengths {text!r}: {reason}; write one of {FORMS}")


def _reason(error: ValidationError) -> str:
    """The first thing that is wrong, without pydantic's own words around it."""
    first = error.errors(include_url=False)[0]
    if first["type"] == "value_error":
        return str(first["ctx"]["error"])
    name = first["loc"][-1] if first["loc"] else "value"
    told = first["msg"][:1].lower() + first["msg"][1:]
    return f"{name}={first['input']!r}: {told}" if first["type"] != "missing" else f"no {name}"


_POSITIONS = {
    "normal": ("mean", "std", "min", "max"),
    "lognormal": ("median", "sigma", "min", "max"),
}


def _fields(text: str) -> dict[str, Any]:
    """A distribution's fields as written; ValueError where the form itself is unknown."""
    name, colon, rest = text.strip().partition(":")
    if colon and name in _POSITIONS:
        return {"distribution": name, **_named(rest, _POSITIONS[name])}
    if colon:
        raise ValueError(f"there is no distribution {name!r}")
    for sign in ("±", "+-"):
        centre, found, ratio = name.partition(sign)
        if found:
            return _around(_number(centre), _number(ratio))
    low, dash, high = name.partition("-")
    if dash and low:
        return {"distribution": "uniform", "low": _number(low), "high": _number(high)}
    return {"distribution": "fixed", "tokens": _number(name)}


def _named(text: str, positions: tuple[str, ...]) -> dict[str, float]:
    fields: dict[str, float] = {}
    parts = text.split(",")
    if len(parts) > len(positions):
        raise ValueError(f"{len(parts)} numbers are more than {', '.join(positions)}")
    for position, part in zip(positions, parts, strict=False):
        name, equals, value = part.partition("=")
        key = name.strip() if equals else position
        if key in fields:
            raise ValueError(f"{key} is given twice")
        fields[key] = _number(value if equals else part)
    return fields


def _number(text: str) -> float:
    try:
        return float(text) if not text.strip().isdigit() else int(text)
    except ValueError:
        raise ValueError(f"{text.strip()!r} is no number") from None


def _around(centre: float, ratio: float) -> dict[str, Any]:
    if not 0 <= ratio < 1:
        raise ValueError(f"a range ratio of {ratio:g} is not from 0 up to 1")
    low, high = math.floor(centre * (1 - ratio)), math.ceil(centre * (1 + ratio))
    return {"distribution": "uniform", "low": low, "high": high}


def _from_text(value: Any) -> Any:
    """A number or a few characters in a spec mean what they mean on the command line."""
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        return parse_lengths(str(value))
    return value


AnyLengths = Fixed | Uniform | Normal | Lognormal
Lengths = Annotated[
    Annotated[AnyLengths, Discriminator("distribution")], BeforeValidator(_from_text)
]
_ADAPTER: TypeAdapter[AnyLengths] = TypeAdapter(
    Annotated[AnyLengths, Discriminator("distribution")]
)
