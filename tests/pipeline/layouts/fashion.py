"""Fashion Product Images in Kaggle's layout, made small."""

from pathlib import Path

from pipeline.datasets.fashion import HEADER
from tests.pipeline.layouts._pictures import noise, save

KINDS = (
    "Men,Apparel,Topwear,Shirts,Blue,Fall,2011,Casual,Turtle Men Shirt",
    "Women,Apparel,Bottomwear,Skirts,Red,Summer,2012.0,Formal,Tops, red, and blue",
    "Men,Accessories,Watches,Watches,Black,Winter,2016,NA,Titan watch",
)
COUNT = 30


def plant(folder: Path) -> Path:
    """Make `styles.csv` and `images`; gives their folder."""
    for number in range(COUNT):
        save(folder / f"images/{1000 + number}.jpg", noise(number, (20, 16, 3)))
    rows = [f"{1000 + number},{KINDS[number % len(KINDS)]}" for number in range(COUNT)]
    (folder / "styles.csv").write_text("\n".join([",".join((*HEADER, "productDisplayName")), *rows]) + "\n")
    return folder
