"""NVIDIA's published figures for its cards: memory bandwidth, and dense products per second in each precision.

Rates are without sparsity; if a data sheet prints only sparse rates, they are halved. A multiply-add is two operations.
If a rate depends on the precision of the sums, it is the higher one, so that the bounds stay valid: GeForce cards
multiply FP16 twice as fast with FP16 sums as with FP32 sums, and the same is true for FP8.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from evodeploy.errors import UsageError

_ADA = "NVIDIA Ada GPU Architecture, white paper 2.02"
_BLACKWELL = "NVIDIA RTX Blackwell GPU Architecture, white paper"
_H100 = "NVIDIA H100 Tensor Core GPU data sheet"


@dataclass(frozen=True)
class Rates:
    """Peak TFLOP/s (TOP/s for INT8) of products; None if the card has no unit for them."""

    fp32: float
    tf32: float | None
    fp16: float
    bf16: float | None
    int8: float
    fp8: float | None


@dataclass(frozen=True)
class Card:
    """A card: `bandwidth` in GB/s, `l2` in MiB, `multiprocessors` as counted by CUDA."""

    name: str
    title: str
    architecture: str
    multiprocessors: int
    bandwidth: float
    l2: float
    rates: Rates
    source: str

    @property
    def bytes_per_second(self) -> float:
        """Memory bandwidth in bytes per second."""
        return self.bandwidth * 1e9

    @property
    def cache(self) -> int:
        """The size of the L2 cache in bytes."""
        return int(self.l2 * 2**20)

    def peak(self, rate: str, *, tf32: bool) -> tuple[str, float]:
        """Return the precision of products in `rate` on this card, and its peak; `tf32` lets FP32 ones round to TF32.

        Raises UsageError if the card has no unit for them.
        """
        name = "tf32" if rate == "fp32" and tf32 and self.rates.tf32 is not None else rate
        peak = getattr(self.rates, name)
        if peak is None:
            has = ", ".join(field.name.upper() for field in fields(self.rates) if getattr(self.rates, field.name))
            raise UsageError(f"{self.title} has no {rate.upper()} products, which this engine needs; it has {has}")
        return name, float(peak)

    def per_second(self, rate: str, *, tf32: bool) -> float:
        """Return the operations per second in the precision `rate`; raises the errors of `peak`."""
        return self.peak(rate, tf32=tf32)[1] * 1e12


CARDS = {
    card.name: card
    for card in (
        Card("t4", "NVIDIA T4", "sm75", 40, 320, 4,
             Rates(8.1, None, 65, None, 130, None), "NVIDIA T4 Tensor Core GPU data sheet"),
        Card("a10", "NVIDIA A10", "sm86", 72, 600, 6,
             Rates(31.2, 62.5, 125, 125, 250, None), "NVIDIA A10 Tensor Core GPU data sheet"),
        Card("a100", "NVIDIA A100 80GB SXM", "sm80", 108, 2039, 40,
             Rates(19.5, 156, 312, 312, 624, None), "NVIDIA A100 Tensor Core GPU data sheet"),
        Card("a100-40gb", "NVIDIA A100 40GB", "sm80", 108, 1555, 40,
             Rates(19.5, 156, 312, 312, 624, None), "NVIDIA A100 Tensor Core GPU data sheet"),
        Card("l4", "NVIDIA L4", "sm89", 58, 300, 48,
             Rates(30.3, 60, 121, 121, 242, 242), "NVIDIA L4 Tensor Core GPU data sheet"),
        Card("l40s", "NVIDIA L40S", "sm89", 142, 864, 96,
             Rates(91.6, 183, 362, 362, 733, 733), "NVIDIA L40S data sheet"),
        Card("4090", "NVIDIA GeForce RTX 4090", "sm89", 128, 1008, 72,
             Rates(82.6, 82.6, 330.3, 165.2, 660.6, 660.6), _ADA),
        Card("5090", "NVIDIA GeForce RTX 5090", "sm120", 170, 1792, 96,
             Rates(104.8, 104.8, 419, 209.5, 838, 838), _BLACKWELL),
        Card("h100", "NVIDIA H100 SXM", "sm90", 132, 3350, 50,
             Rates(67, 494.7, 989.4, 989.4, 1979, 1979), _H100),
        Card("h100-pcie", "NVIDIA H100 PCIe", "sm90", 114, 2000, 50,
             Rates(51, 378, 756.5, 756.5, 1513, 1513), _H100),
        Card("h200", "NVIDIA H200 SXM", "sm90", 132, 4800, 60,
             Rates(67, 494.7, 989.4, 989.4, 1979, 1979), "NVIDIA H200 Tensor Core GPU data sheet"),
        Card("b200", "NVIDIA B200 SXM", "sm100", 148, 8000, 126.5,
             Rates(80, 1125, 2250, 2250, 4500, 4500), "NVIDIA Blackwell data sheet, HGX B200"),
    )
}  # fmt: skip


def card_named(name: str) -> Card:
    """Return the card called `name`. Raises UsageError, which lists all names, if there is none."""
    try:
        return CARDS[name.lower()]
    except KeyError:
        raise UsageError(f"no card is called '{name}'; known are {', '.join(CARDS)}") from None
