"""The images that were read -> sizes, colours, and how far storing them at one size changes them."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.check.rows import Seen

SQUEEZED = 1.5  # change of the sides' ratio from which on it is worth a word


@dataclass(frozen=True, kw_only=True)
class ImagesCheck:
    """`sizes` (width, height) by frequency; the rest as the median image has it, or over all stored pixels."""

    read: int
    sizes: tuple[tuple[tuple[int, int], int], ...]
    squeezed: float  # how many times the sides' ratio changes
    enlarged: float  # stored pixels for one of the file's, along a side
    grey: int
    blank: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


def check_images(seen: Sequence[Seen], size: tuple[int, int]) -> ImagesCheck:
    """Map the rows that were read, at least one, and the stored size to what their images are like."""
    sizes = Counter((one.shape[1], one.shape[0]) for one in seen)
    ratios = [one.shape[1] / one.shape[0] * size[0] / size[1] for one in seen]
    mean, square = np.sum([one.sums for one in seen], axis=0) / (len(seen) * size[0] * size[1])
    std = np.sqrt(np.maximum(square - np.square(mean), 0))
    return ImagesCheck(
        read=len(seen),
        sizes=tuple(sizes.most_common()),
        squeezed=float(np.median([max(ratio, 1 / ratio) for ratio in ratios])),
        enlarged=float(np.median([(size[0] * size[1] / (one.shape[0] * one.shape[1])) ** 0.5 for one in seen])),
        grey=sum(one.grey for one in seen),
        blank=sum(one.blank for one in seen),
        mean=tuple(round(float(value), 4) for value in mean),
        std=tuple(round(float(value), 4) for value in std),
    )


def image_warnings(name: str, images: ImagesCheck, size: tuple[int, int]) -> Iterator[str]:
    """Map a data set's name, its images and the stored size to what looks wrong."""
    if images.squeezed > SQUEEZED:
        (width, height), _ = images.sizes[0]
        near = round((size[0] * size[1] * height / width) ** 0.5)
        yield (
            f"storing changes the sides' ratio {images.squeezed:.1f} times; most images are {width}x{height}, which"
            f" datasets.{name}.size [{near}, {round(near * width / height)}] would keep"
        )
    if images.blank:
        yield f"{images.blank:,} of {images.read:,} images are of one colour all over"
