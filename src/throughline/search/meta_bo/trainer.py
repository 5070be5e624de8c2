"""Training end to end: PPO on the regret of whole runs, and the likelihood of the surrogate beside it."""

from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor, nn

from throughline.core._modules import check_held
from throughline.search.meta_bo.process import NeuralAcquisitionProcess
from throughline.search.meta_bo.runs import (
    Episodes,
    Runs,
    Task,
    TaskPool,
    collect,
    generalized_advantages,
    iid_context,
    run_context,
)

__all__ = ["AcquisitionTrainer"]


class AcquisitionTrainer:
    """Teaches a `NeuralAcquisitionProcess` to search, on tasks whose outcomes are known everywhere.

    "End-to-End Meta-Bayesian Optimisation with Transformer Neural Processes" (NAP, arXiv 2305.15930). An iteration
    (`step`) collects a run on each of a batch of tasks, all stepped together, and learns from its transitions by PPO.
    With reward = improvement a random order of the candidates is rewarded H_T ≈ ln T times in a run, which teaches
    little; so the surrogate's likelihood, over all candidates from randomly drawn histories, is learned beside it.

    Since candidates do not see each other, PPO's pass scores only those that the choice was among.

    Args:
        policy: trained in place, in its own dtype and on its own device.
        tasks: inputs ``(N, d)`` in [0, 1] and outcomes ``(N,)`` scaled to about [0, 1], large ones wanted; or a
            function of a generator that draws such a pair, as `gp_prior_tasks` gives. A task of fewer than two
            candidates or with constant outcomes is left out with a warning.
        horizon: T, trials of a run.
        num_candidates: m, drawn from a task for an episode; all where it has fewer.
        episodes: runs of an iteration.
        lr: of Adam; in an iteration after ``warmup`` of them it falls linearly to 0 at ``total``.
        gamma, gae_lambda: of `generalized_advantages`.
        clip: of PPO's ratio.
        value_coef, likelihood_coef, rl_coef, entropy_coef: weights of the losses.
        top_k: candidates that a choice while collecting is among.
        minibatch_size: transitions of a gradient step; tasks, in `pretrain`.
        epochs: over the transitions of an iteration.
        grad_clip: largest norm of a gradient.
        warmup, total: iterations.
        regret_floor: below which a regret is not told apart from none.
        generator: the only source of randomness; torch's global one if None.

    Attributes:
        optimizer: `torch.optim.Adam` over the policy.
        pretrained, iterations: how often `pretrain` made a step, and `step` was called.

    Raises:
        TypeError: ``policy`` is no `NeuralAcquisitionProcess`, or is one in DistributedDataParallel: the losses are
            more than its forward pass. Give every process the policy itself, and average the gradients in a
            ``register_step_pre_hook`` of ``trainer.optimizer``.
        ValueError: an argument is out of range, a task has duplicate candidates, another width than the policy or fewer
            candidates than ``horizon``, or none is left; in `pretrain` and `step`, the policy has other parameters than
            it had, such as after ``load_state_dict(assign=True)``.

    >>> x = torch.rand(20, 2)
    >>> policy = NeuralAcquisitionProcess(2, d_model=8, num_layers=1, num_bars=10)
    >>> trainer = AcquisitionTrainer(policy, [(x, 1 - (x - 0.3).square().sum(-1))], horizon=4, episodes=8, total=2)
    >>> loss = trainer.pretrain(2)
    >>> sorted(trainer.step())
    ['likelihood_loss', 'policy_loss', 'regret', 'return', 'value_loss']
    """

    def __init__(
        self,
        policy: NeuralAcquisitionProcess,
        tasks: Sequence[Task] | Callable[[Generator], Task],
        *,
        horizon: int = 24,
        num_candidates: int = 300,
        episodes: int = 60,
        lr: float = 3e-5,
        gamma: float = 0.98,
        gae_lambda: float = 0.98,
        clip: float = 0.15,
        value_coef: float = 1.0,
        likelihood_coef: float = 1.0,
        rl_coef: float = 1.0,
        entropy_coef: float = 0.0,
        top_k: int = 5,
        minibatch_size: int = 32,
        epochs: int = 1,
        grad_clip: float = 0.5,
        warmup: int = 20,
        total: int = 2000,
        regret_floor: float = 1e-20,
        generator: Generator | None = None,
    ) -> None:
        if not isinstance(getattr(policy, "_orig_mod", policy), NeuralAcquisitionProcess):
            raise TypeError(
                f"policy must be a NeuralAcquisitionProcess, got {type(policy).__name__}; of a wrapped one give what "
                "is inside, and average gradients in a register_step_pre_hook of trainer.optimizer"
            )
        counts = {
            "horizon": horizon,
            "num_candidates": num_candidates,
            "episodes": episodes,
            "top_k": top_k,
            "minibatch_size": minibatch_size,
            "epochs": epochs,
            "total": total,
        }
        for name, count in counts.items():
            if count < 1:
                raise ValueError(f"{name} must be at least 1, got {count}")
        for name, positive in (("lr", lr), ("clip", clip), ("grad_clip", grad_clip), ("regret_floor", regret_floor)):
            if not positive > 0:
                raise ValueError(f"{name} must be positive, got {positive}")
        self.policy, self.generator = policy, generator
        self.horizon, self.episodes, self.top_k, self.regret_floor = horizon, episodes, top_k, regret_floor
        self.gamma, self.gae_lambda, self.clip = gamma, gae_lambda, clip
        self.value_coef, self.likelihood_coef = value_coef, likelihood_coef
        self.rl_coef, self.entropy_coef = rl_coef, entropy_coef
        self.minibatch_size, self.epochs, self.grad_clip = minibatch_size, epochs, grad_clip
        self.lr, self.warmup, self.total = lr, warmup, total
        self.pool = TaskPool(
            tasks,
            in_features=policy.embed_x.in_features,
            horizon=horizon,
            num_candidates=num_candidates,
            like=policy.embed_x.weight.detach(),
        )
        self.held = [*policy.parameters()]
        self.optimizer = torch.optim.Adam(self.held, lr)
        self.pretrained = self.iterations = 0  # steps and iterations so far

    def pretrain(self, steps: int) -> float:
        """Take gradient steps on the likelihood alone; the loss of the last one.

        The learning rate rises over the first ``warmup`` steps, of all calls together, and stays.
        """
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}")
        check_held(self.held, self.policy.parameters(), "policy")
        self.policy.train()
        for _ in range(steps):
            self._set_lr(min(1.0, (self.pretrained + 1) / max(self.warmup, 1)))
            loss = self._likelihood(self.pool.draw(self.minibatch_size, self.generator))
            self._descend(loss)
            self.pretrained += 1
        self.policy.eval()
        return float(loss.detach())

    def step(self) -> dict[str, float]:
        """One iteration: collect a run on each of ``episodes`` tasks, and learn from them.

        Returns:
            ``policy_loss``, ``value_loss`` and ``likelihood_loss`` as means over the gradient steps, 0 for one
            whose weight is 0; ``return``, the discounted sum of the rewards, and ``regret``, that after the last trial,
            as means over the runs.
        """
        check_held(self.held, self.policy.parameters(), "policy")
        rise, left = (self.iterations + 1) / max(self.warmup, 1), self.total - self.iterations
        self._set_lr(min(1.0, rise, max(0, left) / max(self.total - self.warmup, 1)))
        episodes = self.pool.draw(self.episodes, self.generator)
        self.policy.eval()
        runs = collect(
            self.policy,
            episodes,
            horizon=self.horizon,
            top_k=self.top_k,
            regret_floor=self.regret_floor,
            generator=self.generator,
        )
        advantages, returns = generalized_advantages(
            runs.reward, runs.value, gamma=self.gamma, gae_lambda=self.gae_lambda
        )
        self.policy.train()
        losses = []
        for _ in range(self.epochs):
            for part in torch.split(self._shuffled(advantages.numel()), self.minibatch_size):
                rows, steps = part // self.horizon, part % self.horizon
                losses.append(self._update(episodes, runs, rows, steps, advantages, returns))
        self.policy.eval()
        self.iterations += 1
        discounted = runs.reward @ (self.gamma ** torch.arange(self.horizon, device=runs.reward.device)).to(runs.reward)
        policy_loss, value_loss, likelihood_loss = torch.stack(losses).mean(0).tolist()
        return {
            "policy_loss": policy_loss,
            "value_loss": value_loss,
            "likelihood_loss": likelihood_loss,
            "return": float(discounted.mean()),
            "regret": float(runs.regret[:, -1].mean()),
        }

    def _update(
        self, episodes: Episodes, runs: Runs, rows: Tensor, steps: Tensor, advantages: Tensor, returns: Tensor
    ) -> Tensor:
        """One gradient step on the transitions (rows, steps); its three losses, 0 for one that has no weight."""
        errors = self.policy.value(runs.state[rows, steps]) - returns[rows, steps]
        value_loss = errors.square().mean()
        policy_loss = entropy = likelihood_loss = torch.zeros_like(value_loss)
        if self.rl_coef or self.entropy_coef:
            policy_loss, entropy = self._ppo(episodes, runs, rows, steps, advantages[rows, steps])
        if self.likelihood_coef:
            tasks = torch.unique(rows)  # each once, however many of its transitions are here
            likelihood_loss = self._likelihood(Episodes(*(part[tasks] for part in episodes)))
        loss = self.rl_coef * policy_loss + self.value_coef * value_loss + self.likelihood_coef * likelihood_loss
        self._descend(loss - self.entropy_coef * entropy)
        return torch.stack([policy_loss, value_loss, likelihood_loss]).detach()

    def _ppo(
        self, episodes: Episodes, runs: Runs, rows: Tensor, steps: Tensor, advantages: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The clipped objective, negated, and the entropy of the choices."""
        x, y, mask = run_context(episodes, runs, rows, steps)
        index = runs.offered[rows, steps].unsqueeze(-1).expand(-1, -1, x.shape[-1])
        offered = episodes.x[rows].gather(1, index)
        scores = self.policy(x, y, offered, runs.state[rows, steps], context_mask=mask).acquisition
        log_probs = scores.masked_fill(~runs.open[rows, steps], -torch.inf).log_softmax(-1)
        log_prob = log_probs.gather(1, runs.action[rows, steps].unsqueeze(-1)).squeeze(-1)
        ratio = (log_prob - runs.log_prob[rows, steps]).exp()
        advantage = standardized(advantages)
        clipped = ratio.clamp(1 - self.clip, 1 + self.clip)
        entropy = -(log_probs.exp() * log_probs.clamp_min(torch.finfo(log_probs.dtype).min)).sum(-1).mean()
        return -torch.minimum(ratio * advantage, clipped * advantage).mean(), entropy

    def _likelihood(self, episodes: Episodes) -> Tensor:
        """Negative log-likelihood of all candidates, from random ones of them."""
        x, y, mask = iid_context(episodes, max(self.horizon - 1, 1), self.generator)
        bars = self.policy.predict(x, y, episodes.x, context_mask=mask)
        log_density = self.policy.bars.log_prob(bars, episodes.y)
        return -(log_density * episodes.real).sum() / episodes.real.sum()

    def _descend(self, loss: Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.policy.parameters(), self.grad_clip)
        self.optimizer.step()

    def _set_lr(self, share: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = share * self.lr

    def _shuffled(self, count: int) -> Tensor:
        device = torch.device("cpu") if self.generator is None else self.generator.device
        return torch.randperm(count, generator=self.generator, device=device).to(self.policy.embed_x.weight.device)


def standardized(x: Tensor) -> Tensor:
    """Shifted and scaled to mean 0 and variance 1 (of the sample itself); unchanged where all are equal."""
    spread = x.std(unbiased=False)
    return torch.where(spread > 0, (x - x.mean()) / spread.clamp_min(torch.finfo(x.dtype).tiny), x)
