"""K-means, assignments and principal components of scikit-learn and scipy, as golden values for the tests beside.

    python clustering.py        (scikit-learn 1.9, scipy 1.17; writes kmeans.json, assign.json, pca.json)
"""

import json
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

HERE = Path(__file__).parent
TAU = 2 * np.pi


def keep(name, value):
    (HERE / name).write_text(json.dumps(value, indent=None) + "\n")


def points(count, dim):
    n = np.arange(count * dim)
    noise = np.sin(np.fmod(1.3 * (n + 1.0) ** 2, TAU))
    group = np.where((n // dim * 7 % 5) == (n % dim) % 5, 2.0, 0.0)
    return (noise + group).astype(np.float32).reshape(count, dim)


def kmeans():
    cases = []
    for count, dim, clusters in [(60, 3, 5), (300, 20, 8), (200, 37, 5)]:
        x = points(count, dim)
        found = KMeans(clusters, init=x[:clusters], n_init=1, max_iter=300, tol=0, algorithm="lloyd").fit(x.astype(np.float64))
        cases.append({"points": count, "dim": dim, "clusters": clusters, "iterations": 300,
                      "labels": found.labels_.tolist(), "inertia": found.inertia_})
    keep("kmeans.json", cases)


def assignments():
    cases = []
    for size in [1, 5, 21, 60]:
        n = np.arange(1, size * size + 1, dtype=np.float64)
        gains = (np.sin(np.fmod(0.7 * n**2 + size, TAU)) + 1) / 2
        gains = gains.reshape(size, size)
        rows, columns = linear_sum_assignment(gains, maximize=True)
        cases.append({"size": size, "columns": columns.tolist(), "total": gains[rows, columns].sum()})
    keep("assign.json", cases)


def components():
    cases = []
    for count, dim, kept in [(40, 12, 5), (15, 30, 4)]:
        n = np.arange(1, count * dim + 1, dtype=np.float64)
        x = np.sin(np.fmod(0.7 * n**2, TAU)).reshape(count, dim) * (1 + 0.3 * np.arange(dim))
        found = PCA(kept, whiten=True, svd_solver="full").fit_transform(x)
        cases.append({"rows": count, "dim": dim, "components": kept, "projections": found.flatten().tolist()})
    keep("pca.json", cases)


kmeans()
assignments()
components()
