"""Ridge regression, at once and recursively: the same weights after any prefix of a stream.

"G-ACIL: Analytic Learning for Exemplar-Free Generalized Class Incremental Learning" (arXiv 2403.15706).
"""

import math
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from throughline.core._growing import resize_to_saved
from throughline.core.checks import check_floating, check_tensor

__all__ = ["RecursiveRidge", "ridge"]

BLOCK = 256  # columns of the Gram matrix added at a time, from the diagonal down: Cholesky reads the lower half only
CHUNK = 256  # rows of a batch that the covariance form takes at a time: bounds its temporaries to CHUNK × (d + CHUNK)


def ridge(x: Tensor, y: Tensor, *, penalty: float = 1.0) -> Tensor:
    """Weights of least squares with a squared-norm penalty and no intercept: (XᵀX + γI)⁻¹ XᵀY (eq. 1).

    Solves the d × d system when d <= n and the equivalent n × n one, Xᵀ(XXᵀ + γI)⁻¹ Y, otherwise; by Cholesky, and
    differentiably in ``x`` and ``y``.

    Args:
        x: floating point, ``(..., n, d)``.
        y: ``(..., n, c)`` with the same n.
        penalty: γ, positive and finite.

    Returns:
        ``(..., d, c)`` in the dtype of ``x`` (half precisions are solved in float32).

    Raises:
        TypeError: ``x`` is not floating point.
        ValueError: shapes that do not fit, a bad ``penalty``, or an ``x`` that is not finite.
        RuntimeError: the system is not positive definite in this precision: ``penalty`` is too small for it.

    >>> ridge(torch.tensor([[1.0], [2.0]]), torch.tensor([[2.0], [4.0]]), penalty=5.0)
    tensor([[1.]])
    """
    _check_penalty(penalty)
    check_floating("x", x)
    check_tensor("y", y)
    if x.dim() < 2 or y.dim() < 2 or x.shape[-2] != y.shape[-2]:
        raise ValueError(f"x must be (..., n, d) and y (..., n, c), got {tuple(x.shape)} and {tuple(y.shape)}")
    work = torch.promote_types(x.dtype, torch.float32)
    a, b = x.to(work), y.to(work)
    eye = torch.eye(min(a.shape[-2:]), dtype=work, device=a.device)
    with torch.autocast(a.device.type, enabled=False):
        if a.shape[-1] <= a.shape[-2]:
            weight = torch.cholesky_solve(a.mT @ b, _cholesky(a.mT @ a + penalty * eye, penalty))
        else:
            weight = a.mT @ torch.cholesky_solve(b, _cholesky(a @ a.mT + penalty * eye, penalty))
    return weight.to(x.dtype)


class RecursiveRidge(nn.Module):
    """Ridge regression over a stream: after any batches, in any order, ``weight`` is `ridge` on all their rows.

    The *information* form keeps the Gram matrix and XᵀY and solves when ``weight`` is read. It is additive: learners
    `merge`, and rounding does not grow with the number of updates. The *covariance* form keeps R = (XᵀX + γI)⁻¹ and
    the weights themselves (eqs. 2 and 3), in the gain form with a Cholesky factor of I + XRXᵀ; take it to read the
    weights after every small batch. Rows cost O(d²) each in either form, a read O(d³) in the information form and
    nothing in the other; memory is O(d²). Targets may widen at any time: a new column counts as zeros until then.

    The state lives in buffers, γ included; `load_state_dict` restores a stream in the middle at any
    ``out_features``. Nothing here is differentiable. Keep it in double precision: that is what makes it exact.

    Args:
        in_features: d, at least 1.
        out_features: columns of ``weight`` to begin with.
        penalty: γ, positive and finite.
        form: ``"information"`` or ``"covariance"``.
        dtype: of the state, float64 or float32, whatever the dtype of the data.

    Raises:
        ValueError: an argument out of range.

    >>> x, y = torch.randn(10, 3), torch.randn(10, 2)
    >>> stream = RecursiveRidge(3).update(x[:4], y[:4]).update(x[4:], y[4:])
    >>> torch.allclose(stream.weight, ridge(x.double(), y.double()))
    True
    """

    gram: Tensor
    moment: Tensor
    covariance: Tensor
    coefficients: Tensor
    _penalty: Tensor
    _count: Tensor
    _solved: Tensor | None

    def __init__(
        self,
        in_features: int,
        out_features: int = 0,
        *,
        penalty: float = 1.0,
        form: Literal["information", "covariance"] = "information",
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        _check_penalty(penalty)
        if in_features < 1 or out_features < 0:
            raise ValueError(f"in_features must be >= 1 and out_features >= 0, got {in_features} and {out_features}")
        if form not in ("information", "covariance"):
            raise ValueError(f"form must be 'information' or 'covariance', got {form!r}")
        if dtype not in (torch.float32, torch.float64):
            raise ValueError(f"dtype must be torch.float64 or torch.float32, got {dtype}")
        self.in_features = in_features
        self.form = form
        square = torch.zeros(in_features, in_features, device=device, dtype=dtype)
        columns = torch.zeros(in_features, out_features, device=device, dtype=dtype)
        if form == "information":
            self.register_buffer("gram", square)  # XᵀX on and below the diagonal; γ enters at the solve
            self.register_buffer("moment", columns)  # XᵀY
        else:
            square.diagonal().fill_(1 / penalty)  # R_0 = I/γ (the paper's algorithm box prints γI)
            self.register_buffer("covariance", square)
            self.register_buffer("coefficients", columns)
        self.register_buffer("_penalty", torch.tensor(penalty, dtype=torch.float64, device=device))
        self.register_buffer("_count", torch.zeros((), dtype=torch.int64, device=device))
        self.register_buffer("_solved", None, persistent=False)

    @property
    def penalty(self) -> float:
        """γ."""
        return float(self._penalty)

    @property
    def out_features(self) -> int:
        """Columns of ``weight``: the widest targets so far."""
        return self._columns.shape[1]

    @property
    def num_samples(self) -> int:
        """Rows taken in so far."""
        return int(self._count)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the state."""
        return self._columns.dtype

    @property
    @torch.no_grad()
    def weight(self) -> Tensor:
        """``(in_features, out_features)``; solved at the first read after an update (information form)."""
        if self.form == "covariance":
            return self.coefficients
        if self._solved is None:
            system = self.gram.clone()
            system.diagonal().add_(self.penalty)
            factor = _cholesky(system, self.penalty)
            # two triangular solves, since cholesky_solve would copy the factor
            half = torch.linalg.solve_triangular(factor, self.moment, upper=False)
            self._solved = torch.linalg.solve_triangular(factor.mT, half, upper=True)
        return self._solved

    @torch.no_grad()
    def update(self, x: Tensor, y: Tensor) -> Self:
        """Take in rows ``x (n, d)`` with targets ``y (n, c)``, missing columns counting as zeros; then forget them.

        Raises:
            TypeError: ``x`` or ``y`` is no tensor.
            ValueError: shapes that do not fit, or values that are not finite (or whose squares are not).
            RuntimeError: the covariance form lost positive definiteness: ``penalty`` is too small for the data.
                After either error the learner is as it was.
        """
        check_tensor("x", x)
        check_tensor("y", y)
        if x.dim() != 2 or x.shape[1] != self.in_features:
            raise ValueError(f"x must be (n, {self.in_features}), got shape {tuple(x.shape)}")
        if y.dim() != 2 or y.shape[0] != x.shape[0]:
            raise ValueError(f"y must be ({x.shape[0]}, c) to fit x, got shape {tuple(y.shape)}")
        if x.shape[0] == 0:
            return self
        x, y = x.to(self._columns), y.to(self._columns)
        for name, values in (("x", x), ("y", y)):  # a norm that is finite bounds every entry of the Gram matrix
            if not torch.linalg.vector_norm(values).isfinite():
                raise ValueError(f"{name} must be finite and its squares too, got {_worst(values)} among its entries")
        columns = nn.functional.pad(self._columns, (0, max(0, y.shape[1] - self.out_features)))  # a copy
        if self.form == "information":
            for left in range(0, self.in_features, BLOCK):
                self.gram[left:, left : left + BLOCK].addmm_(x[:, left:].mT, x[:, left : left + BLOCK])
            columns[:, : y.shape[1]].addmm_(x.mT, y)
            self.moment = columns
        else:
            y = nn.functional.pad(y, (0, columns.shape[1] - y.shape[1]))
            with torch.autocast(x.device.type, enabled=False):
                self.covariance = _gain(self.covariance, columns, x, y, self.penalty)
            self.coefficients = columns
        self._count += x.shape[0]
        self._solved = None
        return self

    @torch.no_grad()
    def merge(self, other: "RecursiveRidge") -> Self:
        """Add what ``other`` has seen, exactly (information form; column j of both must mean the same target).

        Raises:
            TypeError: ``other`` is not a `RecursiveRidge`.
            ValueError: covariance form, or learners of different ``in_features`` or ``penalty``.
        """
        if not isinstance(other, RecursiveRidge):
            raise TypeError(f"other must be a RecursiveRidge, got {type(other).__name__}")
        if "covariance" in (self.form, other.form):
            raise ValueError(f"form must be 'information' to merge, got {self.form!r} and other.form {other.form!r}")
        if other.in_features != self.in_features:
            raise ValueError(f"other.in_features must be {self.in_features}, got {other.in_features}")
        if not math.isclose(other.penalty, self.penalty, rel_tol=1e-6):
            raise ValueError(f"other.penalty must be {self.penalty}, got {other.penalty}")
        self.gram = self.gram + other.gram.to(self.gram)
        self.moment = nn.functional.pad(self.moment, (0, max(0, other.out_features - self.out_features)))
        self.moment[:, : other.out_features] += other.moment.to(self.moment)
        self._count += other._count.to(self._count.device)
        self._solved = None
        return self

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """``(..., d)`` to ``(..., out_features)``, computed in the state's dtype, returned in that of ``x``.

        Raises:
            TypeError: ``x`` is no tensor.
            ValueError: ``x`` of another width, or no data yet.
        """
        check_tensor("x", x)
        if x.dim() == 0 or x.shape[-1] != self.in_features:
            raise ValueError(f"x must be (..., {self.in_features}), got shape {tuple(x.shape)}")
        if self.num_samples == 0:
            raise ValueError("update must be called with data before forward, got 0 samples so far")
        with torch.autocast(x.device.type, enabled=False):
            scores = x.to(self._columns) @ self.weight
        return scores.to(x.dtype) if x.is_floating_point() else scores

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, penalty={self.penalty:g}, form={self.form!r}"

    @property
    def _columns(self) -> Tensor:
        return self.moment if self.form == "information" else self.coefficients

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        name = "moment" if self.form == "information" else "coefficients"
        resize_to_saved(self, state_dict, prefix, **{name: 1})
        self._solved = None
        super()._load_from_state_dict(state_dict, prefix, *args)


def _gain(covariance: Tensor, columns: Tensor, x: Tensor, y: Tensor, penalty: float) -> Tensor:
    """Eqs. 2 and 3 in gain form, ``columns`` in place; R comes back, a copy only where a later chunk could still fail.

    With L Lᵀ = I + X R Xᵀ and V = L⁻¹ X R: W += Vᵀ L⁻¹ (Y - X W) and R -= VᵀV. The difference is never multiplied by
    X again, and R stays symmetric.
    """
    rows = min(CHUNK, len(covariance))
    if len(x) > rows:
        covariance = covariance.clone()
    for part, target in zip(torch.split(x, rows), torch.split(y, rows), strict=True):
        reach = part @ covariance  # X R = (R Xᵀ)ᵀ
        system = reach @ part.mT
        system.diagonal().add_(1)
        factor = _cholesky(system, penalty)
        step = torch.linalg.solve_triangular(factor, torch.cat((reach, target - part @ columns), 1), upper=False)
        half, residual = torch.split(step, [len(covariance), y.shape[1]], 1)
        columns.addmm_(half.mT, residual)
        covariance.addmm_(half.mT, half, alpha=-1)
    return covariance


def _cholesky(system: Tensor, penalty: float) -> Tensor:
    try:
        factor: Tensor = torch.linalg.cholesky(system)
    except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
        if not system.isfinite().all():
            raise ValueError(f"x must be finite and its squares too, got {_worst(system)} in XᵀX or XXᵀ") from error
        raise RuntimeError(
            f"the regularised system is not positive definite in {system.dtype}: penalty={penalty:g} is too small for "
            f"these values ({error})"
        ) from error
    return factor


def _worst(values: Tensor) -> float:
    bad = values[~values.isfinite()]
    return float(bad[0] if len(bad) else values.abs().max())


def _check_penalty(penalty: float) -> None:
    if not 0 < penalty < math.inf:
        raise ValueError(f"penalty must be positive and finite, got {penalty}")
