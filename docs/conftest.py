"""Run every Python block of the documentation; names that short fragments take for granted are set here."""

import os
import tempfile

import matplotlib

matplotlib.use("Agg")

import numpy as np
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

import rmtntk as rn


def _names(namespace):
    generator = np.random.default_rng(0)
    means = np.zeros((2, 60))
    means[:, 0] = 3.0, -3.0
    mixture = rn.GaussianMixture(means, covariances=[1.0, 1.2])
    (x, labels), (x_test, labels_test) = mixture.sample(120, generator), mixture.sample(40, generator)
    net = rn.Network(["relu", "relu", "relu"])
    namespace.update(
        np=np, rn=rn, x=x, x_train=x, labels=labels, x_test=x_test, labels_test=labels_test, net=net, means=means,
        covariances=np.array([1.0, 1.2]), y=2.0 * labels - 1.0,
    )  # fmt: skip
    pixels = generator.integers(0, 256, (120, 784)).astype(float)
    namespace.update(pixels=pixels, scores=np.eye(2)[labels], parts=[(x[:60], labels[:60]), (x[60:], labels[60:])])
    namespace["t"] = rn.compress(net, x, widths=(40, 40, 30), rng=0)
    # one empty folder a page, in which its blocks may write and find files
    namespace.update(_home=os.getcwd(), _folder=tempfile.TemporaryDirectory())
    os.chdir(namespace["_folder"].name)
    namespace["eq"] = rn.equivalent(net, x, correction="second_order")


def _leave(namespace):
    os.chdir(namespace["_home"])
    namespace["_folder"].cleanup()


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(), SkipParser()],
    patterns=["*.md"],
    setup=_names,
    teardown=_leave,
).pytest()
