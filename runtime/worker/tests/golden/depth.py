"""Values that src/metric/depth.rs is held to: errors of depth with unknown pixels, by scikit-learn and NumPy."""

import json
import math

import numpy as np
from sklearn.metrics import root_mean_squared_error


def wave(at, step):
    return math.sin(math.fmod(step * (at + 1) ** 2, 2 * math.pi))


truth, predicted = [], []
for at in range(105):
    place = at % 35 % 11
    truth.append({3: 0.0, 5: 255.0, 7: float("nan")}.get(place, 4 + 3 * wave(at, 0.7)))
    predicted.append(3.5 + 4 * wave(at, 0.9))
truth, predicted = np.array(truth, "float32"), np.array(predicted, "float32")
known = np.isfinite(truth) & (truth > 0) & (truth != 255)
y, p = truth[known].astype("float64"), np.maximum(predicted[known].astype("float64"), 1e-9)
assert (predicted[known] < 0).any()
constant = np.full_like(y, y.mean())
print(
    json.dumps(
        {
            "valid": int(known.sum()),
            "rmse": root_mean_squared_error(y, p),
            "log_rmse": root_mean_squared_error(np.log(y), np.log(p)),
            "mean": y.mean(),
            "mean_rmse": root_mean_squared_error(y, constant),
            "mean_log_rmse": root_mean_squared_error(np.log(y), np.log(constant)),
        },
        indent=1,
    )
)
