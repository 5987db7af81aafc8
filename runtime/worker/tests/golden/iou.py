"""Values that src/metric/iou.rs is held to: a confusion matrix and what is read from it, by scikit-learn.

    python iou.py > iou.json
"""

import json

import numpy as np
from sklearn.metrics import confusion_matrix, jaccard_score

CLASSES = 6
n = np.arange(1, 4001)
# 255 is void. Class 4 is in no truth; class 5 is in none and never predicted.
truth = np.where(n % 13 == 0, 255, n * n % 17 % 4)
predicted = np.where(n % 3 == 0, n * n % 23 % 5, truth % 5 % 4)
known = truth != 255
table = confusion_matrix(truth[known], predicted[known], labels=range(CLASSES))
iou = jaccard_score(truth[known], predicted[known], labels=range(CLASSES), average=None, zero_division=0)
nowhere = table.sum(0) + table.sum(1) == 0
present = table.sum(1) > 0
print(
    json.dumps(
        {
            "confusion": table.tolist(),
            "iou": [None if none else value for none, value in zip(nowhere, iou)],
            "official": float(iou.mean()),
            "fixed": float(iou[present].mean()),
            "accuracy": float((truth == predicted)[known].mean()),
        },
        indent=1,
    )
)
