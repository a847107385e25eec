"""The estimators inside scikit-learn: its own checks, pipelines, searches, kernels, transformers."""

import pickle

import numpy as np
import pytest
import scipy.sparse

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.decomposition import KernelPCA
from sklearn.gaussian_process import GaussianProcessClassifier, GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, WhiteKernel
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import parametrize_with_checks

import rmtntk as rn
from rmtntk.estimators import (
    InputScaler,
    KernelFeatures,
    NTKClassifier,
    NTKKernel,
    NTKRegressor,
    TernaryFeatures,
)

EVERY = [
    NTKClassifier(),
    NTKClassifier("erf", 1, kernel="ck", alpha=0.1, class_weight="balanced", standardize=None),
    NTKClassifier(["relu", "tanh"], alpha=[0.01, 0.1], criterion="loo", standardize="features", fit_intercept=False),
    NTKRegressor(),
    NTKRegressor("gelu", 2, kernel="nngp", bias_std=0.1, alpha="loo", standardize="common", centered=False),
    NTKRegressor(alpha="lml", keep_spectrum=False),
    InputScaler(),
    InputScaler("features"),
    KernelFeatures(),
    TernaryFeatures("erf", 1, widths=50, quantize="weights", standardize=None),
    TernaryFeatures(depth=2, widths=100),
]


def expected_failures(estimator):
    if getattr(estimator, "alpha", None) == "lml":
        return {
            "check_sample_weight_equivalence_on_dense_data": "a likelihood takes weights as precisions of the noise: "
            "two equal observations say that the noise is small, one of double weight does not"
        }
    return {}


CHECKS = parametrize_with_checks(EVERY, expected_failed_checks=expected_failures)


# Other parameters of a class tried above take other paths of fit and predict, not of how arguments are refused.
NUMERICAL = (
    "pickle", "idempotent", "subset_invariance", "order_invariance", "weight", "_train", "_int", "dict_unchanged",
    "not_an_array", "1feature", "1sample",
)  # fmt: skip


def chosen(estimator, check):
    """The default run takes all checks of one estimator a class, of its variants those of numbers."""
    first = next(k for k, other in enumerate(EVERY) if type(other) is type(estimator))
    return str(EVERY[first]) == str(estimator) or any(part in str(check) for part in NUMERICAL)


def marked(case):
    """A case of scikit-learn's own, slow unless it is chosen; its marks are kept."""
    values, marks = (case.values, list(case.marks)) if hasattr(case, "marks") else (case, [])
    return pytest.param(*values, marks=marks if chosen(*values) else [*marks, pytest.mark.slow])


# a list, as pytest wants it: older versions of scikit-learn make a generator
@pytest.mark.parametrize(CHECKS.args[0], [marked(case) for case in CHECKS.args[1]], ids=CHECKS.kwargs["ids"])
def test_scikit_learns_checks(estimator, check):
    check(estimator)


def blobs(n=150, p=6, seed=0):
    generator = np.random.default_rng(seed)
    y = np.arange(n) % 3
    x = generator.standard_normal((n, p))
    x[:, 0] += 2.0 * (y == 1)
    x[:, 1] += 2.0 * (y == 2)
    return x, y


def test_grid_search_over_activations_and_depth():
    x, y = blobs()
    search = GridSearchCV(
        make_pipeline(StandardScaler(), NTKClassifier(alpha=0.1)),
        {
            "ntkclassifier__activations": ["relu", "erf", rn.activations.leaky_relu(0.2), ["relu", "tanh"]],
            "ntkclassifier__depth": [1, 3],
            "ntkclassifier__kernel": ["ck", "ntk"],
        },
        cv=3,
    ).fit(x, y)
    assert search.best_score_ > 0.7
    # a list has its own depth
    table = search.cv_results_
    scores = [
        score
        for score, options in zip(table["mean_test_score"], table["params"], strict=True)
        if options["ntkclassifier__activations"] == ["relu", "tanh"] and options["ntkclassifier__kernel"] == "ck"
    ]
    assert scores[0] == scores[1]
    assert np.isfinite(table["mean_test_score"]).all()


def test_names_of_a_pandas_frame_are_kept_and_checked():
    pandas = pytest.importorskip("pandas")
    x, y = blobs()
    frame = pandas.DataFrame(x, columns=[f"f{k}" for k in range(6)])
    for model in (NTKClassifier(alpha=0.1), TernaryFeatures(depth=1, widths=20, random_state=0), InputScaler()):
        model.fit(frame, y)
        assert list(model.feature_names_in_) == list(frame.columns)
        use = model.predict if hasattr(model, "predict") else model.transform
        np.testing.assert_array_equal(use(frame), clone(model).fit(x, y).__getattribute__(use.__name__)(x))
        with pytest.raises(ValueError, match="feature names"):
            use(frame[frame.columns[::-1]])
    features = TernaryFeatures(depth=1, widths=3, random_state=0).set_output(transform="pandas").fit(frame)
    assert list(features.transform(frame).columns) == [f"ternaryfeatures{k}" for k in range(3)]
    assert list(features.get_feature_names_out()) == [f"ternaryfeatures{k}" for k in range(3)]
    assert list(InputScaler().fit(frame).get_feature_names_out()) == list(frame.columns)
    assert len(KernelFeatures().fit(x).get_feature_names_out()) == 150


@pytest.mark.parametrize("model", [NTKClassifier(), NTKRegressor(), TernaryFeatures(), InputScaler(), KernelFeatures()])
def test_sparse_input_is_refused_clearly(model):
    x, y = blobs()
    with pytest.raises(TypeError, match=r"Sparse data was passed.*dense data is required"):
        model.fit(scipy.sparse.csr_array(x), y)
    assert not get_tags(model).input_tags.sparse


def test_tags():
    assert get_tags(NTKClassifier()).estimator_type == "classifier"
    assert get_tags(NTKRegressor()).estimator_type == "regressor"
    assert get_tags(NTKRegressor()).target_tags.multi_output
    assert get_tags(TernaryFeatures()).transformer_tags.preserves_dtype == []


def test_the_kernel_object_in_every_kernel_estimator_is_the_precomputed_kernel():
    x, y = blobs()
    scaled = InputScaler().fit_transform(x)
    kernel = NTKKernel("relu", 2)
    net = rn.Network(["relu"] * 2, tau0=1.0)
    train, test = scaled[:100], scaled[100:]
    gram, cross = rn.ntk(net, train), rn.ntk(net, test, train)
    np.testing.assert_array_equal(kernel(train), gram)
    np.testing.assert_array_equal(kernel(test, train), cross)
    for kind in ("ck", "ntk", "nngp"):
        other = NTKKernel("relu", 2, kind, weight_std=1.2, bias_std=0.3)
        np.testing.assert_allclose(other.diag(train), np.diagonal(other(train)), rtol=1e-14)
    object_, table = SVC(kernel=kernel, C=10.0), SVC(kernel="precomputed", C=10.0)
    np.testing.assert_allclose(  # libsvm stops at 1e-3
        object_.fit(train, y[:100]).decision_function(test),
        table.fit(gram, y[:100]).decision_function(cross),
        atol=1e-6,
    )
    np.testing.assert_allclose(
        KernelRidge(0.1, kernel=kernel).fit(train, y[:100]).predict(test),
        KernelRidge(0.1, kernel="precomputed").fit(gram, y[:100]).predict(cross),
        rtol=1e-9,
    )
    a = KernelPCA(3, kernel=kernel, eigen_solver="dense").fit(train).transform(test)
    b = KernelPCA(3, kernel="precomputed", eigen_solver="dense").fit(gram).transform(cross)
    np.testing.assert_allclose(np.abs(a), np.abs(b), atol=1e-10)


def test_kernel_features_make_precomputed_kernels_in_a_pipeline():
    x, y = blobs()
    model = make_pipeline(KernelFeatures("relu", 2), SVC(kernel="precomputed", C=10.0))
    by_object = make_pipeline(InputScaler(), SVC(kernel=NTKKernel("relu", 2), C=10.0))
    np.testing.assert_array_equal(
        model.fit(x[:100], y[:100]).predict(x[100:]), by_object.fit(x[:100], y[:100]).predict(x[100:])
    )
    assert cross_val_score(model, x, y, cv=3).mean() > 0.7
    gram = KernelFeatures().fit_transform(x)
    np.testing.assert_array_equal(gram, gram.T)


def test_gradients_of_the_kernel():
    """Against one-sided differences of higher order, of the kernels themselves, in the logarithms."""
    x, _ = blobs(12)
    kernel = NTKKernel(
        "erf", 2, weight_std=1.3, bias_std=0.4, weight_std_bounds=(0.1, 10.0), bias_std_bounds=(0.1, 10.0)
    )
    names = [h.name for h in kernel.hyperparameters]
    assert names == ["bias_std", "weight_std"]
    value, gradient = kernel(x, eval_gradient=True)
    np.testing.assert_array_equal(value, kernel(x))
    h = 2e-3
    for k in range(2):

        def moved(step, k=k):
            theta = kernel.theta.copy()
            theta[k] += step
            return kernel.clone_with_theta(theta)(x)

        expected = (8 * (moved(h) - moved(-h)) - (moved(2 * h) - moved(-2 * h))) / (12 * h)
        # h⁴ = 1.6e-11 here, 1e-8 = step² in the kernel
        np.testing.assert_allclose(gradient[:, :, k], expected, atol=2e-7 * np.abs(value).max())
    assert NTKKernel()(x, eval_gradient=True)[1].shape == (12, 12, 0)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")  # an optimum at a bound is one, too
def test_gaussian_processes_optimise_weights_and_biases():
    x = np.linspace(-1.0, 1.0, 30)[:, None]
    y = np.sin(4.0 * x[:, 0] + 1.0) + 0.05 * np.random.default_rng(0).standard_normal(30)
    fixed = NTKKernel("erf", 1, "nngp", bias_std=0.5)
    free = NTKKernel("erf", 1, "nngp", bias_std=0.5, weight_std_bounds=(0.1, 30.0), bias_std_bounds=(0.01, 30.0))
    a, b = (
        GaussianProcessRegressor(ConstantKernel() * kernel + WhiteKernel(1e-2, (1e-6, 1.0)), random_state=0).fit(x, y)
        for kernel in (fixed, free)
    )
    assert b.log_marginal_likelihood_value_ > a.log_marginal_likelihood_value_ + 2.0
    with pytest.raises(ValueError, match="`bias_std` must be positive where it has bounds"):
        GaussianProcessRegressor(NTKKernel(bias_std_bounds=(0.1, 1.0))).fit(x, y)


def test_the_kernel_in_a_gaussian_process_classifier():
    x, y = blobs(60)
    model = GaussianProcessClassifier(NTKKernel("relu", 1), optimizer=None).fit(InputScaler().fit_transform(x), y)
    assert model.score(InputScaler().fit_transform(x), y) > 0.8


def test_kernel_objects_clone_compare_and_print():
    kernel = NTKKernel(["relu", "erf"], kernel="ck", bias_std=0.1)
    assert clone(kernel) == kernel
    assert pickle.loads(pickle.dumps(kernel)) == kernel
    assert clone(kernel).set_params(bias_std=0.2) != kernel
    assert repr(kernel).startswith("NTKKernel(")
    assert not kernel.is_stationary()
    with pytest.raises(rn.InfiniteDiagonalError, match="kernel='ck'"):
        NTKKernel("sign")(np.eye(3))
    with pytest.raises(ValueError, match="`eval_gradient`"):
        kernel(np.eye(3), np.eye(3), eval_gradient=True)


def test_ternary_features_are_those_of_compress():
    x, _ = blobs()
    model = TernaryFeatures("relu", 2, widths=(40, 30), sparsity=0.5, random_state=3).fit(x)
    rows = InputScaler().fit_transform(x)
    seed = int(np.random.RandomState(3).randint(np.iinfo(np.int32).max))
    twin = rn.compress(rn.Network(["relu"] * 2, tau0=1.0), rows, widths=(40, 30), sparsity=0.5, rng=seed)
    # thresholds between two inputs that differ by rounding flip a unit in 1e15
    np.testing.assert_allclose(model.transform(x), twin.features(rows), rtol=1e-12, atol=1e-14)
    assert set(np.unique(model.network_.weights[0])) <= {-1, 0, 1}
    assert model.network_.is_ternary
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.transform(x), model.transform(x))
    fixed = [clone(model).fit(x).transform(x) for _ in range(2)]
    np.testing.assert_array_equal(*fixed)
    free = [TernaryFeatures(depth=1, widths=10).fit(x).transform(x) for _ in range(2)]
    assert not np.array_equal(*free)


def test_ternary_features_approach_the_kernel_and_classify():
    """Gram matrix of 20,000 features against the CK of the matched network: entries' error like width^-1/2."""
    x, y = blobs()
    model = TernaryFeatures("relu", 1, widths=20000, quantize="weights", sparsity=0.5, random_state=0).fit(x)
    features = model.transform(x)
    kernel = rn.ck(rn.Network(["relu"], tau0=1.0), InputScaler().fit_transform(x))
    # six inputs through weights with three values: the law of the weights shows, beyond 1/sqrt(20000) = .007
    assert np.linalg.norm(features @ features.T - kernel, 2) < 0.15 * np.linalg.norm(kernel, 2)
    pipeline = make_pipeline(TernaryFeatures("relu", 1, widths=500, sparsity=0.5, random_state=0), RidgeClassifier())
    assert cross_val_score(pipeline, x, y, cv=3).mean() > 0.6


def test_a_saved_ternary_network_takes_raw_rows(tmp_path):
    x, _ = blobs()
    raw = 50.0 + 10.0 * x
    model = TernaryFeatures(depth=1, widths=30, random_state=0).fit(raw)
    model.network_.save(tmp_path / "net.npz")
    loaded = rn.TernaryNetwork.load(tmp_path / "net.npz")
    np.testing.assert_array_equal(loaded.features(raw), model.transform(raw))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widths": 0}, "`widths` must be at least 1"),
        ({"widths": (10, 10)}, "`widths` must have one entry per layer, 3"),
        ({"sparsity": 1.0}, "`sparsity` must be"),
        ({"quantize": "some"}, "`quantize` must be one of 'all', 'weights'"),
        ({"standardize": "auto"}, "`standardize` must be one of 'common'"),
        ({"method": "best"}, "`method` must be one of"),
    ],
)
def test_wrong_parameters_of_ternary_features_are_named(options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        TernaryFeatures(**options).fit(blobs()[0])


def test_input_bits_make_integer_models():
    x = np.random.default_rng(0).integers(0, 256, (100, 30)).astype(float)
    model = TernaryFeatures("relu", 1, widths=20, input_bits=8, sparsity=0.0, random_state=0).fit(x)
    plain = TernaryFeatures("relu", 1, widths=20, sparsity=0.0, random_state=0).fit(x)
    assert model.network_.quantiser is not None
    np.testing.assert_allclose(model.transform(x), plain.transform(x), atol=1e-9)  # integers are taken as they are
