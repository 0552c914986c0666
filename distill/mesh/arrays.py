"""Types of the numpy arrays that the modules of `distill.mesh` use."""

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
UInt8 = NDArray[np.uint8]
