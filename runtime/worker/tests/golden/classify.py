"""Golden values of kNN, SVM, average precision and logistic regression, from scikit-learn and faiss (classify.json).

    OMP_NUM_THREADS=1 python classify.py        (scikit-learn 1.9, faiss-cpu, numpy)

Features are made from sines, so that any language can make the same.
"""

import json
import os

import faiss
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, precision_recall_curve
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import LinearSVC

HERE = os.path.dirname(os.path.abspath(__file__))


def table(rows, columns, classes, noise, start):
    """Row i is of class i mod classes: its class's centre plus noise; float32."""
    index = start + np.arange(rows * columns, dtype=np.float64).reshape(rows, columns)
    label = np.arange(rows) % classes
    centre = np.sin(1.3 * (label[:, None] * columns + np.arange(columns)) + 1)
    return (centre + noise * np.sin(0.37 * index + 0.11 * index**1.5)).astype(np.float32), label


def unit(x):
    return x / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)


def envelope(score, truth):
    precision, recall, _ = precision_recall_curve(truth, score)
    precision, recall = precision[::-1], recall[::-1]  # recall rising
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall) * precision[1:]))


golden = {}

# kNN: 600 rows vote on 200.
(train, label), (test, _) = table(600, 32, 7, 3.0, 0), table(200, 32, 7, 3.0, 50_000)
golden["knn"], golden["knn_five"] = {}, {}
for k in (1, 5, 10, 20, 100, 200):
    tool = KNeighborsClassifier(k, weights=lambda d: np.exp((1 - d**2 / 2) / 0.07), algorithm="brute")
    golden["knn"][str(k)] = tool.fit(unit(train), label).predict(unit(test)).tolist()
    # Five classes by falling score, equal ones by number.
    order = np.argsort(-tool.predict_proba(unit(test)), axis=1, kind="stable")
    golden["knn_five"][str(k)] = order[:, : min(5, k)].tolist()
flat = faiss.IndexFlatIP(32)
flat.add(unit(train).astype(np.float32))
golden["faiss"] = flat.search(unit(test).astype(np.float32), 20)[1].tolist()

# SVM: three one-against-the-rest problems, unevenly frequent.
(x, label), (y, truth) = table(240, 24, 9, 6.0, 0), table(180, 24, 9, 6.0, 90_000)
x, y = (z / (np.linalg.norm(z.astype(np.float64), axis=1, keepdims=True) + 1e-5) for z in (x, y))
golden["svm"] = []
for classes in ([0], [1, 2], [3, 4, 5, 6]):
    sign, truth_sign = np.isin(label, classes) * 2 - 1, np.isin(truth, classes)
    entry = {"classes": classes}
    for cost in (0.5, 100.0):
        tool = LinearSVC(C=cost, class_weight={1: 2, -1: 1}, dual=False, tol=1e-10, max_iter=100_000).fit(x, sign)
        score = tool.decision_function(y)
        entry[str(cost)] = {
            "weight": tool.coef_[0].tolist(),
            "bias": float(tool.intercept_[0]),
            "envelope": envelope(score, truth_sign),
            "stepwise": float(average_precision_score(truth_sign, score)),
        }
    folds = StratifiedKFold(3)
    entry["fold"] = [0] * len(sign)
    for number, (_, held) in enumerate(folds.split(x, sign)):
        for at in held:
            entry["fold"][at] = number
    entry["cross_validated"] = [
        float(
            np.mean(
                cross_val_score(
                    LinearSVC(C=cost, class_weight={1: 2, -1: 1}, dual=False, tol=1e-10, max_iter=100_000),
                    x, sign, cv=3, scoring="average_precision",
                )
            )
        )
        for cost in (0.01, 0.1, 1.0, 10.0)
    ]
    golden["svm"].append(entry)

# Average precision on random and tied scores.
golden["precision"] = []
state = np.random.default_rng(0)
for case in range(12):
    truth = state.random(60) < 0.1 + 0.05 * case
    truth[case] = True
    score = state.normal(size=60) + truth
    golden["precision"].append(
        {
            "truth": truth.tolist(),
            "score": score.tolist(),
            "envelope": envelope(score, truth),
            "stepwise": float(average_precision_score(truth, score)),
        }
    )
tied = np.round(score)
golden["tied"] = {"truth": truth.tolist(), "score": tied.tolist(), "stepwise": float(average_precision_score(truth, tied))}

# A linear probe without a penalty on standardised features.
(x, label), (y, truth) = table(700, 16, 10, 2.2, 0), table(1000, 16, 10, 2.2, 200_000)
mean, std = x.mean(0), x.std(0)
tool = LogisticRegression(C=1e8, max_iter=20_000, tol=1e-8).fit((x - mean) / std, label)
golden["logistic"] = {
    "test": float(tool.score((y - mean) / std, truth)),
    "train": float(tool.score((x - mean) / std, label)),
    "loss": float(-np.mean(np.log(tool.predict_proba((x - mean) / std)[np.arange(700), label]))),
}

with open(f"{HERE}/classify.json", "w") as file:
    json.dump(golden, file)
for name in ("logistic",):
    print(name, golden[name])
print([[e["0.5"]["envelope"], e["cross_validated"]] for e in golden["svm"]])
