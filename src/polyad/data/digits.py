"""`digits`: 1,797 handwritten digits of 8x8 pixels that come with scikit-learn, so that no download is needed.

E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998.
"""

import numpy as np

from polyad.data.base import SOURCES, DataSource, Images, Source, check_channels
from polyad.errors import DataError
from polyad.records import Preprocessing

SHARES = {"train": 0.60, "validation": 0.15, "test": 0.25}


def open_digits(rest: str, preprocessing: Preprocessing) -> DataSource:
    """Grey images (1, 8, 8) in a fixed split, each class in its share."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    if rest:
        raise DataError(f"'digits:{rest}' is not understood: the digits have no further name, write digits.")
    check_channels(1, preprocessing, "digits")
    data, labels = load_digits(return_X_y=True)
    images = (data.reshape(-1, 8, 8) / 16).astype(np.float32)
    others, test = train_test_split(np.arange(len(labels)), test_size=SHARES["test"], stratify=labels, random_state=0)
    share = SHARES["validation"] / (1 - SHARES["test"])
    train, validation = train_test_split(others, test_size=share, stratify=labels[others], random_state=0)
    parts = {"train": train, "validation": validation, "test": test}
    splits = {name: Images(images[part], labels[part], preprocessing) for name, part in parts.items()}
    return DataSource("digits", splits, 10)


SOURCES.register(
    "digits", Source("digits", "digits", "8x8 handwritten digits that come with scikit-learn", open_digits)
)
